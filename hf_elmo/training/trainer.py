"""Training a biLM: rows of running text with the LSTM state carried along, exact resume, any number of processes."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import TrainOutput, get_last_checkpoint
from transformers.training_args import OptimizerNames

from ..language_model.scoring import perplexity
from ..model.configuration_elmo import ElmoConfig
from ..model.lstm.lstm_layer import ElmoState
from ..model.modeling_elmo import ElmoForPreTraining
from ..model.tokenization_elmo import ElmoTokenizer
from ..vectors.memory import give_back_memory
from ..vectors.text_files import MAX_LINE_BYTES
from .batches import BatchLoader, RunningText, WholeSentences, WordTable
from .checkpoints import WholeCheckpoints
from .corpus import Corpus, prepare
from .muon import MuonWithAdamW, is_hidden_matrix

# After this many batches free memory goes back to the system.
_BATCHES_BETWEEN_TRIMS = 100

#: What evaluation reads: texts or lists of words.
_Sentences = Dataset | Iterable[str | Sequence[str]]

#: Optimiser and schedule of bilm-tf (`bilm/training.py`), as fields of `LanguageModelTrainingArguments`.
ORIGINAL_RECIPE = {
    "optim": "adagrad",
    "learning_rate": 0.2,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "weight_decay": 0.0,
    "max_grad_norm": 10.0,
    "multiply_loss": True,
}


@dataclass
class LanguageModelTrainingArguments(TrainingArguments):
    """`transformers.TrainingArguments` of a biLM's training; `per_device_train_batch_size` are rows.

    Attributes:
        unroll_steps: Words of a row in a batch, which is how far gradients reach back.
        carry_state: Rows are running text, and the LSTM state is carried from batch to batch, as in the original.
            False: a batch is whole sentences, about as many words, and each begins with zeros.
        shuffle_sentences: Rows of running text are sentences in random order, as in the original. False: they are the
            text as it stands, so that a sentence is read after the one before it.
        multiply_loss: Multiply the loss by `unroll_steps`, as bilm-tf does; it matters where gradients are clipped.
        matrix_learning_rate: Train the matrices between vectors with Muon, at this peak rate, and AdamW, at
            `learning_rate`, on the rest (`MuonWithAdamW`). None: `optim` trains all.
    """

    unroll_steps: int = field(default=20, metadata={"help": "Words of a row in a batch."})
    carry_state: bool = field(default=True, metadata={"help": "Carry the LSTM state from batch to batch."})
    shuffle_sentences: bool = field(default=True, metadata={"help": "Shuffle the sentences of running text."})
    multiply_loss: bool = field(default=False, metadata={"help": "Multiply the loss by unroll_steps, as bilm-tf does."})
    matrix_learning_rate: float | None = field(default=None, metadata={"help": "Muon on matrices, at this rate."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unroll_steps < 1:
            raise ValueError(f"unroll_steps must be at least 1, was: {self.unroll_steps}.")
        if self.matrix_learning_rate is not None and not self.optim.startswith("adamw_torch"):
            raise ValueError(
                f"With matrix_learning_rate Muon and AdamW train, but optim was {OptimizerNames(self.optim).value}: "
                "give one."
            )

    @property
    def optimizer_name(self) -> str:
        """The name under which a checkpoint records the optimiser."""
        return OptimizerNames(self.optim).value if self.matrix_learning_rate is None else "muon"

    @property
    def precision_name(self) -> str:
        """The name under which a checkpoint records the precision of matrix products."""
        return "bf16" if self.bf16 else "fp16" if self.fp16 else "fp32"


class LanguageModelTrainer(WholeCheckpoints, Trainer):
    """`Trainer` for `ElmoForPreTraining` on a `Corpus`.

    The class adds what the stock one cannot do: the LSTM state goes from batch to batch, and into checkpoints; a
    batch's place in the text is its number, so that a resumed run goes on as if never interrupted, bit for bit; a loss
    that is not finite ends the run before it can spoil the weights. Every process of `accelerate launch` has rows of
    its own.
    """

    args: LanguageModelTrainingArguments
    model: ElmoForPreTraining
    processing_class: ElmoTokenizer

    def __init__(
        self,
        model: ElmoForPreTraining,
        args: LanguageModelTrainingArguments,
        corpus: Corpus,
        processing_class: ElmoTokenizer,
        eval_dataset: Sequence[str | Sequence[str]] | None = None,
        **options: Any,
    ):
        """As `transformers.Trainer`.

        Args:
            model: The biLM.
            args: The arguments.
            corpus: The text to train on.
            processing_class: The tokenizer, whose vocabulary the softmax predicts.
            eval_dataset: Sentences, texts or lists of words, for perplexity.
            options: Further arguments of `Trainer`.

        Raises:
            ValueError: for a vocabulary that is not the model's, or a text smaller than a batch.
        """
        if len(processing_class) != model.config.vocab_size:
            raise ValueError(
                f"The tokenizer has {len(processing_class):,} words, but the model's softmax "
                f"{model.config.vocab_size:,}: they must come from one vocabulary."
            )
        sizes = {"seed": args.seed, "process": args.process_index, "processes": args.world_size}
        table = WordTable.of(corpus.lexicon, processing_class)
        rows = args.per_device_train_batch_size
        self.batches: RunningText | WholeSentences
        if args.carry_state:
            self.batches = RunningText(corpus, table, rows, args.unroll_steps, **sizes, shuffle=args.shuffle_sentences)
        else:
            self.batches = WholeSentences(corpus, table, rows * args.unroll_steps, **sizes)
        self.lstm_state: ElmoState | None = None
        self._losses = torch.zeros(2)
        self._batches_read = 0
        super().__init__(
            model=model,
            args=args,
            train_dataset=self.batches,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **options,
        )
        self._stream = {
            "rows": rows,
            "unroll_steps": args.unroll_steps,
            "carry_state": args.carry_state,
            "shuffle_sentences": args.shuffle_sentences,
            "seed": args.seed,
            "processes": args.world_size,
            "optimizer": args.optimizer_name,
            "precision": args.precision_name,
            "words": len(corpus.words),
            "sentences": len(corpus.ends),
        }

    def get_train_dataloader(self) -> BatchLoader:
        """The batches of this process, epoch by epoch."""
        workers = self.args.dataloader_num_workers
        return BatchLoader(self.batches, num_workers=workers, pin_memory=self.args.device.type == "cuda")

    def create_optimizer(self, *arguments: Any, **options: Any) -> torch.optim.Optimizer:
        """As in `Trainer`, or a `MuonWithAdamW` if `args.matrix_learning_rate` is set.

        Adagrad begins with squares of 1, as in TensorFlow, not 0 (which makes first steps huge).
        """
        fresh, matrix_learning_rate = self.optimizer is None, self.args.matrix_learning_rate
        if fresh and matrix_learning_rate is not None:
            self.optimizer = self._muon(matrix_learning_rate, *arguments, **options)
            return self.optimizer
        optimizer = super().create_optimizer(*arguments, **options)
        if fresh and isinstance(optimizer, torch.optim.Adagrad):
            for state in optimizer.state.values():
                state["sum"].fill_(1.0)
        return optimizer

    def _muon(self, matrix_learning_rate: float, model: torch.nn.Module | None = None) -> MuonWithAdamW:
        trained_model = self.model if model is None else model
        trained = {name: parameter for name, parameter in trained_model.named_parameters() if parameter.requires_grad}
        matrices = {name for name, parameter in trained.items() if is_hidden_matrix(name, parameter, trained_model)}
        decays = set(self.get_decay_parameter_names(trained_model))
        others = [name for name in trained if name not in matrices]
        return MuonWithAdamW(
            [parameter for name, parameter in trained.items() if name in matrices],
            [
                {"params": [trained[name] for name in others if name in decays]},
                {"params": [trained[name] for name in others if name not in decays], "weight_decay": 0.0},
            ],
            matrix_learning_rate,
            self.args.learning_rate,
            self.args.weight_decay,
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
            fused=self.args.optim == "adamw_torch_fused",
        )

    def train(self, *arguments: Any, **options: Any) -> TrainOutput:
        """As in `Trainer`; the state begins with zeros."""
        self.lstm_state = None
        return super().train(*arguments, **options)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """As in `Trainer`, with the state that the batch before left.

        Raises:
            FloatingPointError: for a loss that is not finite.
        """
        self._batches_read += 1
        if self._batches_read % _BATCHES_BETWEEN_TRIMS == 0:
            # Gradients and inputs of the batch before are freed; batches of many shapes leave gaps between what stays.
            give_back_memory()
        carries = self.args.carry_state
        if carries:
            inputs = {**inputs, "state": self.lstm_state, "return_state": True}
        both = super().compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch)
        loss, outputs = cast("tuple[torch.Tensor, Any]", both)  # because of return_outputs
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The loss is {loss.item()} at step {self.state.global_step + 1}. {self._whole_so_far()} Lower the "
                "learning rate, and resume."
            )
        if carries:
            self.lstm_state = ElmoState(*outputs["state"]).detach()
        self._losses += torch.stack([outputs["forward_loss"], outputs["backward_loss"]]).detach().float().cpu()
        if self.args.multiply_loss:
            loss = loss * self.args.unroll_steps
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in `Trainer`; beside the mean loss since the last log, that of each direction, in nats per word."""
        if "loss" in logs and self._losses.any():
            if self.args.multiply_loss:
                logs["loss"] /= self.args.unroll_steps
            forward, backward = (logs["loss"] * self._losses / self._losses.mean()).tolist()
            logs |= {"forward_loss": forward, "backward_loss": backward}
            self._losses.zero_()
        super().log(logs, start_time)

    def evaluate(
        self,
        eval_dataset: _Sentences | dict[str, _Sentences] | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Perplexity of the sentences, each on its own: exact over all of them, with the full softmax.

        Returns:
            `eval_loss` (mean cross entropy of both directions, nats per word), `eval_perplexity`,
            `eval_forward_perplexity`, `eval_backward_perplexity`, `eval_unknown` (share of the words that are outside
            the vocabulary), `eval_runtime` in seconds.
        """
        sentences = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(sentences, dict):
            metrics: dict[str, float] = {}
            for name, part in sentences.items():
                metrics |= self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}")
            return metrics
        started = time.perf_counter()
        result = perplexity(self.model, self.processing_class, cast("Iterable[str | Sequence[str]]", sentences))
        values = {
            "loss": math.log(result.mean),
            "perplexity": result.mean,
            "forward_perplexity": result.forward,
            "backward_perplexity": result.backward,
            "unknown": result.unknown,
            "runtime": time.perf_counter() - started,
        }
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    # `Trainer` writes and reads the random state here, for each process, and so the place for other such states.
    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        tensors = {} if self.lstm_state is None else self.lstm_state._asdict()
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, self._state_file(output_dir), {"stream": json.dumps(self._stream)})

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # `Trainer` reads this first of a checkpoint, so one of another training is refused before it is mixed in.
        if checkpoint is not None:
            self._stored_state(checkpoint)
        super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint is not None:
            tensors = self._stored_state(checkpoint)
            self.lstm_state = ElmoState(**tensors) if tensors else None

    def _stored_state(self, checkpoint: str) -> dict[str, torch.Tensor]:
        file = self._state_file(checkpoint)
        try:
            # Of several processes on CPUs each has a number, which safetensors does not know.
            device = "cpu" if self.args.device.type == "cpu" else str(self.args.device)
            with safe_open(file, framework="pt", device=device) as stored:
                stream = json.loads(stored.metadata()["stream"])
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (not a mapping)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{file} is not a state of a language model's training ({error}): resume from another checkpoint, or "
                "with as many processes as before."
            ) from None
        # Checkpoints of before the optimiser and the precision were recorded do not have them.
        recorded = [name for name in self._stream if name in stream or name not in ("optimizer", "precision")]
        if changed := [name for name in recorded if stream.get(name) != self._stream[name]]:
            raise ValueError(
                f"{checkpoint} cannot be resumed so, because the training would not go on as it began: "
                + ", ".join(f"{name} was {stream.get(name)}, now {self._stream[name]}" for name in changed)
                + ". Resume with the values of before, or begin in another folder, with --model for these weights."
            )
        return tensors

    def _state_file(self, folder: str) -> str:
        return os.path.join(folder, f"lstm_state_{self.args.process_index}.safetensors")


def make_model(
    corpus: Corpus,
    config: ElmoConfig | None = None,
    model: str | Path | None = None,
    vocabulary: Iterable[str] | None = None,
    vocabulary_size: int = 10_000,
) -> tuple[ElmoForPreTraining, ElmoTokenizer]:
    """The biLM to train on a text, and its tokenizer: a fresh one, or one to train further.

    Args:
        corpus: The text.
        config: Sizes of a fresh model; its `vocab_size` is set here.
        model: Folder of a model to train further, instead. Its softmax and vocabulary are taken over if it has a
            softmax; else (published weights have none) they are made anew, and fields of `config` do not count. A
            model with a `word_embed_dim` keeps its vocabulary in any case.
        vocabulary: The words that a fresh softmax learns to predict, most frequent first. None: the most frequent ones
            of the text.
        vocabulary_size: The number of these words.

    Raises:
        ValueError: if both or neither of `config` and `model` are given, a vocabulary for a model that has one, or
            sizes of a fresh model whose characters only a tokenizer could tell.
    """
    if (config is None) == (model is None):
        raise ValueError("Give either the sizes of a fresh model, or the folder of a model to train further.")
    words = list(vocabulary) if vocabulary is not None else corpus.vocabulary(vocabulary_size)
    if config is not None:
        if not config.byte_characters and config.character_inputs:
            raise ValueError("A fresh model reads bytes: set byte_characters to True.")
        tokenizer = ElmoTokenizer.create(
            words,
            config.max_characters_per_token,
            word_ids_in_rows=config.character_inputs and config.word_embed_dim > 0,
            reads_characters=config.character_inputs,
        )
        config.vocab_size = len(tokenizer)
        return ElmoForPreTraining(config), tokenizer
    assert model is not None, "one of the two is given"
    has_softmax, own = _has_softmax(model), ElmoConfig.from_pretrained(model)
    if has_softmax or own.word_embed_dim:
        if vocabulary is not None:
            part = "softmax" if has_softmax else "word embedding"
            raise ValueError(f"{model} has a {part} with a vocabulary of its own: leave the vocabulary out.")
        return ElmoForPreTraining.from_pretrained(model), ElmoTokenizer.from_pretrained(model)
    characters = None if own.byte_characters else ElmoTokenizer.from_pretrained(model).characters
    tokenizer = ElmoTokenizer.create(words, own.max_characters_per_token, characters=characters)
    return ElmoForPreTraining.from_pretrained(model, vocab_size=len(tokenizer)), tokenizer


def recorded_precision(output: str | Path) -> str | None:
    """The precision in which the training in a folder goes on: that of its last checkpoint.

    Args:
        output: The folder of the training.

    Returns:
        `LanguageModelTrainingArguments.precision_name`: ``fp32``, ``bf16`` or ``fp16``; None without a checkpoint.
        Checkpoints of before the precision was recorded are taken for ``fp32``, the default of then.
    """
    checkpoint = get_last_checkpoint(str(output)) if os.path.isdir(output) else None
    if checkpoint is None:
        return None
    # What is wrong with a checkpoint is said when it is resumed.
    file = os.path.join(checkpoint, "lstm_state_0.safetensors")
    faults = OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError
    with suppress(*faults), safe_open(file, framework="pt") as stored:
        return str(json.loads(stored.metadata()["stream"])["precision"])
    return "fp32"


def _has_softmax(folder: str | Path) -> bool:
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise ValueError(f"There are no weights (model.safetensors) in {folder}.")
    for file in files:
        with safe_open(file, framework="pt") as weights:
            if "softmax.weight" in weights.keys():  # noqa: SIM118 (not a mapping)
                return True
    return False


def train(
    files: Iterable[str | Path],
    output: str | Path,
    config: ElmoConfig | None = None,
    *,
    model: str | Path | None = None,
    vocabulary: Iterable[str] | None = None,
    vocabulary_size: int = 10_000,
    split_sentences: bool = True,
    pretokenized: bool = False,
    max_line_bytes: int = MAX_LINE_BYTES,
    eval_dataset: Sequence[str | Sequence[str]] | None = None,
    resume: bool = False,
    **arguments: Any,
) -> LanguageModelTrainer:
    """Trains a biLM on text files and saves model, tokenizer, checkpoints and log in a folder.

    Args:
        files: UTF-8 text, plain or packed with gzip or Zstandard; `-` is standard input.
        output: The folder; the numbered text (`_corpus`) and checkpoints go there too.
        config: As for `make_model`.
        model: As for `make_model`.
        vocabulary: As for `make_model`.
        vocabulary_size: As for `make_model`.
        split_sentences: Split each line into sentences; otherwise a line is a sentence.
        pretokenized: Words stand between white space; otherwise `ElmoTokenizer` splits them.
        max_line_bytes: Most bytes in a line of text.
        eval_dataset: Sentences for perplexity, where `arguments` say when (`eval_strategy`).
        resume: Go on from the last checkpoint in `output`; from the beginning if there is none yet.
        arguments: Fields of `LanguageModelTrainingArguments`.

    Raises:
        ValueError: for missing or empty text, or less than a batch; for standard input and several processes.
        FloatingPointError: when the loss stops being a number.
        OSError: when a checkpoint cannot be written.
    """
    # Without an accelerator mixed precision has to be asked for explicitly.
    defaults: dict[str, Any] = {"report_to": "none", "use_cpu": not torch.accelerator.is_available()}
    args = LanguageModelTrainingArguments(output_dir=str(output), **{**defaults, **arguments})
    files = list(files)
    if args.world_size > 1 and "-" in map(str, files):
        raise ValueError("Standard input cannot be read by several processes: give files.")
    # Making a corpus anew under a training that is interrupted is as harmless as opening it.
    with args.main_process_first(desc="counting words"):
        corpus = prepare(files, Path(output) / "_corpus", split_sentences, pretokenized, max_line_bytes)
    torch.manual_seed(args.seed)
    language_model, tokenizer = make_model(corpus, config, model, vocabulary, vocabulary_size)
    trainer = LanguageModelTrainer(language_model, args, corpus, tokenizer, eval_dataset)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(output)) if resume else None)
    trainer.save_whole_model()
    trainer.save_state()
    return trainer
