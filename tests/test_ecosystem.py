"""What users of the hub do to any model: new tokens, adapters (PEFT), weights spread over devices (accelerate)."""

import copy
import re

import pytest
import torch
from amounts import first_of
from places import CHECKOUT
from small_models import fill, random_words, small_config
from transformers import AutoTokenizer, DataCollatorForTokenClassification, Trainer, TrainingArguments

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from hf_elmo.vectors.embedding import embed_sentences

WORDS = ["the", "cat", "sat", "on", "mat", "dog", "ran", "."]
SENTENCES = [["the", "cat", "sat", "."], ["the", "dog", "ran", "on", "the", "mat", "."], ["."]]


@pytest.fixture
def tokenizer():
    return ElmoTokenizer.create(WORDS, max_characters_per_token=8)


def encode(tokenizer, sentences=SENTENCES):
    return tokenizer(sentences, is_split_into_words=True, padding=True, return_tensors="pt")


class TestNewTokens:
    def test_words_of_raw_text(self, tokenizer, tmp_path):
        assert tokenizer.add_tokens(["gnu", "cat", "gnu", "New York"]) == 2
        assert tokenizer.add_tokens("yak") == 1
        assert tokenizer.add_special_tokens({"additional_special_tokens": ["<e>"]}) == 1
        tokenizer.save_pretrained(tmp_path)
        for ours in (tokenizer, AutoTokenizer.from_pretrained(tmp_path)):
            assert len(ours) == 4 + len(WORDS) + 4
            assert set(ours.get_added_vocab()) == {"[PAD]", "[UNK]", "<S>", "</S>", "gnu", "New York", "yak", "<e>"}
            text = "the cats gnus New Yorker, New York gnu. <e>cat<e>"
            expected = ["the", "cats", "gnus", "New", "Yorker", ",", "New York", "gnu", ".", "<e>", "cat", "<e>"]
            assert ours.tokenize(text) == expected
            ids = ours(text, add_special_tokens=False)["input_ids"]
            assert ids == [4, 1, 1, 1, 1, 1, 13, 12, 11, 15, 5, 15]
            given = ours(["gnu", "gnus", "New York", "New"], is_split_into_words=True, add_special_tokens=False)
            assert given["input_ids"] == [12, 1, 13, 1]

    @pytest.mark.parametrize("mean_resizing", [True, False])
    def test_the_language_model_gets_rows(self, tokenizer, tmp_path, mean_resizing):
        model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))
        before = copy.deepcopy(model)
        tokenizer.add_tokens(["gnu", "yak"])
        torch.manual_seed(0)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=mean_resizing)
        assert model.config.vocab_size == 14
        assert type(model.softmax) is type(before.softmax)
        assert (model.softmax.out_features, tuple(model.softmax.weight.shape)) == (14, (14, 5))
        old = before.softmax
        assert torch.equal(model.softmax.weight[:12], old.weight)
        assert torch.equal(model.softmax.bias[:12], old.bias)
        new = model.softmax.weight[12:]
        if mean_resizing:
            torch.testing.assert_close(new, old.weight.mean(dim=0).expand(2, -1), atol=1e-3, rtol=0)
            torch.testing.assert_close(model.softmax.bias[12:], old.bias.mean().expand(2), atol=1e-3, rtol=0)
        else:
            assert 0 < new.abs().max() < 0.2
            assert not model.softmax.bias[12:].any()
        model.save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        again = ElmoForPreTraining.from_pretrained(tmp_path).eval()
        batch = encode(tokenizer, [["the", "gnu", "ran"], ["yak"]])
        with torch.no_grad():
            logits = model(**batch).logits
            assert torch.equal(again(**batch).logits, logits)
            assert torch.equal(logits[..., :12], before(**batch).logits)
        assert hf_elmo.perplexity(again, AutoTokenizer.from_pretrained(tmp_path), [["the", "gnu"]]).unknown == 0

    @pytest.mark.parametrize("num_negative_samples", [None, 6])
    def test_new_words_are_learned(self, tokenizer, num_negative_samples):
        fields = {"vocab_size": len(tokenizer), "num_negative_samples": num_negative_samples, "dropout": 0.0}
        torch.manual_seed(0)
        model = ElmoForPreTraining(small_config(**fields))
        tokenizer.add_tokens(["gnu"])
        model.resize_token_embeddings(len(tokenizer))
        batch = encode(tokenizer, [["the", "gnu", "ran"]])
        labels = batch["input_ids"]
        assert labels.max() == len(tokenizer) - 1
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(60):
            model.train()(**batch, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            output = model.eval()(**batch)
        # Behind "the" and before "ran".
        assert output.logits[0, 1].argmax() == output.backward_logits[0, 3].argmax() == len(tokenizer) - 1

    def test_last_words_go(self, tokenizer):
        model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer), num_negative_samples=3)))
        before = model.softmax.weight.clone()
        model.resize_token_embeddings(6)
        assert torch.equal(model.softmax.weight, before[:6])
        labels = torch.tensor([[2, 4, 5, 3]])
        loss = model.train()(character_ids=random_words([4]), labels=labels).loss
        assert loss.isfinite()
        with pytest.raises(ValueError, match="vocabulary has words 1 to 5"):
            model(character_ids=random_words([4]), labels=labels + 1)

    def test_embeddings_of_words(self):
        """A word embedding of the biLM and further word vectors of a tagger, frozen as they were."""
        config = small_config(vocab_size=9, word_embed_dim=3, word_vector_size=2, num_labels=3)
        model = fill(ElmoForTokenClassification(config))
        ids = torch.tensor([[4, 8, 5]])
        rows = torch.cat([random_words([3]), ids.unsqueeze(-1)], dim=-1)
        inputs = {"input_ids": ids, "character_ids": rows}
        with torch.no_grad():
            before = model(**inputs).logits
            with pytest.raises(ValueError, match="knows words 0 to 8"):
                model(input_ids=ids + 1, character_ids=torch.cat([rows[..., :-1], rows[..., -1:] + 1], dim=-1))
            parameters = [model.word_vectors.weight, model.elmo.character_encoder.word_embedding.weight]
            means = [parameter.mean(dim=0) for parameter in parameters]
            frozen = [parameter.requires_grad for parameter in parameters]
            model.resize_token_embeddings(11)
            assert torch.equal(model(**inputs).logits, before)
            inputs = {"input_ids": ids + 1, "character_ids": torch.cat([rows[..., :-1], rows[..., -1:] + 1], dim=-1)}
            assert model(**inputs).logits.isfinite().all()
        resized = [model.word_vectors, model.elmo.character_encoder.word_embedding]
        for table, mean in zip(resized, means):
            assert (table.num_embeddings, table.padding_idx) == (11, 0)
            torch.testing.assert_close(table.weight[9:], mean.expand(2, -1), atol=1e-3, rtol=0)
        assert [table.weight.requires_grad for table in resized] == frozen

    def test_fresh_rows_of_embeddings(self):
        model = ElmoModel(small_config(vocab_size=9, word_embed_dim=3))
        model.resize_token_embeddings(11, mean_resizing=False)
        assert (model.character_encoder.word_embedding.weight[9:].abs() > 0).all()

    def test_what_cannot_be(self, tokenizer):
        model = ElmoForPreTraining(small_config(vocab_size=12))
        for size in (3, 0, -1, 12.5, True):
            with pytest.raises(ValueError, match=r"at least 4 words, the special ones, but .* was given"):
                model.resize_token_embeddings(size)
        with pytest.raises(ValueError, match="every row of the word vocabulary is a word that can be predicted"):
            model.resize_token_embeddings(12, pad_to_multiple_of=8)
        assert model.resize_token_embeddings() is model.get_input_embeddings()
        assert model.config.vocab_size == model.softmax.out_features == 12


class TestDevices:
    """`device_map`, by the real accelerate. Without an accelerator, devices are the CPU and the disk."""

    @pytest.fixture(autouse=True)
    def accelerate(self):
        return pytest.importorskip("accelerate")

    @pytest.fixture
    def tagger(self, tokenizer):
        return fill(ElmoForTokenClassification(small_config(vocab_size=len(tokenizer), num_labels=5)))

    def test_everything_fits(self, tokenizer, tagger, tmp_path):
        tagger.save_pretrained(tmp_path)
        model = ElmoForTokenClassification.from_pretrained(tmp_path, device_map="auto")
        batch = encode(tokenizer).to(model.device)
        with torch.no_grad():
            torch.testing.assert_close(model(**batch).logits.cpu(), tagger(**encode(tokenizer)).logits)

    @pytest.mark.parametrize("place", ["auto", "disk", "only the biLM", "only the head"])
    def test_a_part_on_disk(self, tokenizer, tagger, tmp_path, place):
        tagger.save_pretrained(tmp_path / "model")
        children = [name for name, _ in tagger.named_children()]
        size = sum(parameter.numel() * parameter.element_size() for parameter in tagger.parameters())
        device_map = {
            "auto": "auto",
            "disk": {"": "disk"},
            "only the biLM": {name: "disk" if name == "elmo" else "cpu" for name in children},
            "only the head": {name: "cpu" if name == "elmo" else "disk" for name in children},
        }[place]
        limits = {"max_memory": {"cpu": size // 2}} if place == "auto" else {}
        model = ElmoForTokenClassification.from_pretrained(
            tmp_path / "model", device_map=device_map, offload_folder=tmp_path / "offloaded", **limits
        )
        assert any(parameter.is_meta for parameter in model.parameters())
        assert model.device == torch.device("cpu")
        batch = encode(tokenizer)
        with torch.no_grad():
            torch.testing.assert_close(model(**batch).logits, tagger(**batch).logits)
            labels = batch["input_ids"] % 5
            torch.testing.assert_close(model(**batch, labels=labels).loss, tagger(**batch, labels=labels).loss)
        assert model.decode(**batch) == tagger.decode(**batch)

    def test_the_language_model_on_disk(self, tokenizer, tmp_path):
        here = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))
        here.save_pretrained(tmp_path / "model")
        there = ElmoForPreTraining.from_pretrained(
            tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "offloaded"
        )
        texts = ["the cat sat", "."]
        scores = [hf_elmo.perplexity(model, tokenizer, texts) for model in (there, here)]
        assert scores[0].forward == pytest.approx(scores[1].forward)
        assert scores[0].backward == pytest.approx(scores[1].backward)
        filled = [hf_elmo.substitutes(model, tokenizer, "the [MASK] .") for model in (there, here)]
        assert [word["token"] for word in filled[0]] == [word["token"] for word in filled[1]]
        assert [word["score"] for word in filled[0]] == pytest.approx([word["score"] for word in filled[1]])
        read = [torch.stack(list(hf_elmo.stream(model, tokenizer, WORDS))) for model in (there, here)]
        torch.testing.assert_close(*read)
        vectors = [
            [s.vectors for s in embed_sentences(model, tokenizer, SENTENCES)] for model in (there.elmo, here.elmo)
        ]
        for ours, theirs in zip(*vectors, strict=True):
            torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs))
        with pytest.raises(ValueError, match="rows of words are offloaded"):
            there.resize_token_embeddings(20)


TAGS = {"the": 0, "cat": 1, "dog": 1, "mat": 1, "sat": 2, "ran": 2, "on": 3, ".": 4}


def tagged(tokenizer):
    """A little corpus of parts of speech, as a list of features."""
    rows = []
    for words in [*SENTENCES[:2], ["the", "mat", "sat", "on", "the", "dog", "."], ["the", "cat", "ran", "."]] * 4:
        features = tokenizer(words, is_split_into_words=True)
        rows.append({**features, "labels": [-100, *(TAGS[word] for word in words), -100]})
    return rows


def trainable(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


class TestAdapters:
    """LoRA by the real PEFT."""

    # Names that transformers has given up, and PEFT and Trainer still use.
    pytestmark = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*is deprecated:FutureWarning")

    @pytest.fixture(autouse=True)
    def peft(self):
        return pytest.importorskip("peft", reason="needs the extra peft")

    def train(self, model, tokenizer, folder, **arguments):
        trainer = Trainer(
            model,
            TrainingArguments(
                str(folder), max_steps=30, learning_rate=2e-2, per_device_train_batch_size=8, report_to=[], seed=1,
                logging_steps=10, save_strategy="no", disable_tqdm=True, use_cpu=True, **arguments,
            ),
            train_dataset=tagged(tokenizer),
            data_collator=DataCollatorForTokenClassification(tokenizer),
        )  # fmt: skip
        trainer.train()
        return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]

    @pytest.mark.parametrize("where", first_of(["modules", "lstm parameters"]))
    def test_a_tagger(self, peft, tokenizer, tmp_path, where):
        """Trained by Trainer, saved, put on the base model again, and merged into it."""
        config = small_config(
            vocab_size=len(tokenizer), num_labels=5, task_encoder_size=6, task_encoder_layers=1, task_dropout=0.0,
            representation_dropout=0.0, dropout=0.0, freeze_bilm=False,
        )  # fmt: skip
        fill(ElmoForTokenClassification(config)).save_pretrained(tmp_path / "base")
        base = ElmoForTokenClassification.from_pretrained(tmp_path / "base")
        parts = {
            "modules": {"target_modules": ["projection", "transform", "carry"]},
            "lstm parameters": {"target_modules": [], "target_parameters": ["weight_ih", "weight_hh", "weight_hr"]},
        }[where]
        lora = peft.LoraConfig(
            task_type="TOKEN_CLS", r=2, modules_to_save=["classifier", "crf", "task_encoder", "scalar_mixes.0"], **parts
        )
        model = peft.get_peft_model(base, lora)
        assert {"lora_" in name or "modules_to_save" in name for name in trainable(model)} == {True}
        untouched = {
            name: value.clone()
            for name, value in model.state_dict().items()
            if name.partition("elmo.")[1] and "lora_" not in name and "modules_to_save" not in name
        }
        start = {name: value.clone() for name, value in model.state_dict().items() if "lora_B" in name}
        losses = self.train(model, tokenizer, tmp_path / "run")
        assert losses[-1] < 0.7 * losses[0]
        after = model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in untouched.items())
        assert all((after[name] != value).any() for name, value in start.items())
        batch = encode(tokenizer)
        with torch.no_grad():
            trained = model.eval()(**batch).logits
        model.save_pretrained(tmp_path / "adapter")

        base = ElmoForTokenClassification.from_pretrained(tmp_path / "base").eval()
        with torch.no_grad():
            before = base(**batch).logits
            again = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
            torch.testing.assert_close(again(**batch).logits, trained)
            with again.disable_adapter():
                torch.testing.assert_close(again(**batch).logits, before)
            assert (before - trained).abs().max() > 0.1
            merged = again.merge_and_unload()
            assert type(merged) is ElmoForTokenClassification
            torch.testing.assert_close(merged(**batch).logits, trained, atol=1e-4, rtol=1e-4)
            merged.save_pretrained(tmp_path / "merged")
            plain = ElmoForTokenClassification.from_pretrained(tmp_path / "merged").eval()
            torch.testing.assert_close(plain(**batch).logits, trained, atol=1e-4, rtol=1e-4)
            assert plain.decode(**batch) == model.base_model.model.decode(**batch)

    def test_merged_at_once_after_the_base_model_was_used(self, peft, tokenizer):
        """PEFT adds to weights in place, unseen by autograd: what was made of the old ones must not be used again."""
        model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))
        batch = encode(tokenizer)
        with torch.no_grad():
            before = model(**batch).logits
            lora = peft.LoraConfig(
                r=2, target_modules=["projection"], target_parameters=["weight_ih", "weight_hh", "weight_hr"],
                init_lora_weights=False,
            )  # fmt: skip
            merged = peft.get_peft_model(model, lora).merge_and_unload()
            plain = ElmoForPreTraining(model.config).eval()
            plain.load_state_dict(merged.state_dict())
            assert (merged(**batch).logits - before).abs()[..., 1:].max() > 0.1
            torch.testing.assert_close(merged(**batch).logits, plain(**batch).logits)

    def test_gradient_checkpointing(self, peft, tokenizer):
        """Of modules as without it; of parameters, which PEFT changes in the first of two computations, an error."""
        batch = encode(tokenizer)
        batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        gradients = []
        for checkpointing in (False, True):
            model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer), dropout=0.0)))
            torch.manual_seed(0)
            lora = peft.LoraConfig(r=2, target_modules=["projection"], init_lora_weights=False)
            model = peft.get_peft_model(model, lora).train()
            if checkpointing:
                model.gradient_checkpointing_enable()
                model.enable_input_require_grads()
            model(**batch).loss.backward()
            gradients.append([parameter.grad for parameter in model.parameters() if parameter.requires_grad])
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs)
        model = fill(ElmoForPreTraining(small_config(vocab_size=len(tokenizer))))
        model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_parameters=["weight_hh"])).train()
        model(**batch).loss.backward()
        model.gradient_checkpointing_enable()
        with pytest.raises(ValueError, match=r"an adapter on its parameters \(target_parameters\)"):
            model(**batch)
        model.eval()(**batch)

    def test_what_the_documentation_shows(self, capsys):
        file = CHECKOUT / "docs" / "adapters.md"
        if not file.is_file():
            pytest.skip("only a checkout has the documentation")
        examples = re.findall(r"```python\n(.*?)```", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert len(examples) == 2
        for example in examples:
            exec(example, {})
        printed = capsys.readouterr().out
        assert "trainable params: " in printed
        assert "2\nWordSoftmax(in_features=192, out_features=12006, bias=True)" in printed

    @pytest.mark.parametrize("mode", ["full", "sampled", "sampled, no adapter there"])
    def test_the_softmax(self, peft, tokenizer, mode):
        config = small_config(vocab_size=len(tokenizer), num_negative_samples=None if mode == "full" else 6)
        targets = ["projection"] if mode.endswith("no adapter there") else ["projection", "softmax"]
        model = peft.get_peft_model(fill(ElmoForPreTraining(config)), peft.LoraConfig(r=2, target_modules=targets))
        batch = encode(tokenizer)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        if mode == "sampled":
            with pytest.raises(ValueError, match="leave softmax out of the adapter's target_modules"):
                model.train()(**batch, labels=labels)
            return
        model.train()(**batch, labels=labels).loss.backward()
        for name, parameter in model.named_parameters():
            # A fresh adapter's first factor has no gradient: its second one is zero.
            if "lora_B" in name:
                assert parameter.grad.abs().max() > 0, name
        with torch.no_grad():
            logits = model.eval()(**batch).logits
            assert (logits[..., 0] == torch.finfo(torch.float32).min).all()
        if mode == "full":
            with pytest.raises(ValueError, match="rows of words are within an adapter"):
                model.get_base_model().resize_token_embeddings(20)
