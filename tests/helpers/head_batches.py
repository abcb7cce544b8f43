"""Fresh heads of every task on a base model's folder, and a batch for each."""

import torch
import transformers

from hf_elmo.model.remote_code import AUTO_MAP

# All of them, so that a new one is tested too.
HEADS = [name for name in AUTO_MAP if name.startswith("AutoModelFor") and name != "AutoModelForPreTraining"]
QUESTIONS = ["Who sat on the mat ?", "What barks ?", "Is this a pair ?", "Really ?"]
TEXTS = ["A cat sat on the mat .", "Dogs bark", "Yes , a question and a text .", "No"]


def batch_for(name, tokenizer):
    """Four pairs and their labels; two times two choices."""
    batch = dict(tokenizer(QUESTIONS, TEXTS, padding=True, return_tensors="pt"))
    if "MultipleChoice" in name:
        batch = {key: tensor.unflatten(0, (2, 2)) for key, tensor in batch.items()}
        return {**batch, "labels": torch.tensor([0, 1])}
    if "QuestionAnswering" in name:
        # Words of the contexts: the first behind their <S>.
        starts = batch["token_type_ids"].argmax(dim=1) + 1
        return {**batch, "start_positions": starts, "end_positions": starts}
    if "TokenClassification" in name:
        return {**batch, "labels": batch["input_ids"] % 2}
    return {**batch, "labels": torch.tensor([0, 1, 1, 0])}


def load(name, folder, seed=0, **fields):
    """A small model of an Auto class; its head is random."""
    torch.manual_seed(seed)
    sizes = {"task_encoder_size": 10, "task_encoder_layers": 1, "classifier_size": 12}
    return getattr(transformers, name).from_pretrained(folder, **{**sizes, **fields})
