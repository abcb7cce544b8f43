"""The cards that models have on the hub, whichever tool pushed them, read as the hub has them."""

import json
import re
import shutil

import huggingface_hub
import pytest
import transformers
from datasets import Dataset
from hub_server import HubServer
from hub_storage import TOKEN
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.utils import close_session
from safetensors.torch import load_file, save_file
from small_models import fill, small_config
from small_translator import SOURCES, save_translator
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)
from typer.testing import CliRunner

from hf_elmo import ElmoEncoderDecoderModel, ElmoForTokenClassification, ElmoModel, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.hub.model_card import check_card, check_metadata

TAGS = {"elmo", "bilm", "character-cnn"}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub, which is the only one that huggingface_hub knows."""
    constants = huggingface_hub.constants
    with HubServer(tmp_path / "hub") as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url, 1)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        # transformers keeps the way to the first hub that it was asked for.
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "*")
        close_session()
        yield hub
        close_session()
        assert hub.unknown == []


def card_of(hub, name):
    return ModelCard(hub.read(name, "README.md").decode())


@pytest.fixture
def tagger():
    return fill(ElmoForTokenClassification(small_config(task_encoder_size=6, num_labels=3, vocab_size=6)))


def push(folder, name):
    result = CliRunner().invoke(app, ["push", str(folder), name])
    assert result.exit_code == 0, result.output


def test_push_of_a_folder_without_code(hub, tiny_model_folder, tmp_path):
    """On the hub there is code, and the model has another name."""
    folder = shutil.copytree(tiny_model_folder, tmp_path / "here", ignore=shutil.ignore_patterns("*.py"))
    push(folder, "tester/there")
    card = check_card(card_of(hub, "tester/there"))
    assert "# there\n" in card.text
    assert card.text.count('.from_pretrained("tester/there", trust_remote_code=True)') == 2
    assert "here" not in card.text.replace("there", "").replace("where", "")
    assert "in the place of the name" not in card.text


def test_push_of_the_bundled_model(hub):
    push("elmo-mini", "tester/mini")
    card = check_card(card_of(hub, "tester/mini"))
    assert card.text.count('.from_pretrained("tester/mini", trust_remote_code=True)') == 2
    assert card.data.license == "apache-2.0"


def test_push_to_hub(hub, tagger):
    tagger.push_to_hub("tester/tagger", tags=["mine"])
    card = check_card(card_of(hub, "tester/tagger"))
    assert "[More Information Needed]" not in str(card)
    assert card.data.pipeline_tag == "token-classification"
    assert set(card.data.tags) == TAGS | {"mine"}
    assert 'AutoModelForTokenClassification.from_pretrained("tester/tagger", trust_remote_code=True)' in card.text
    assert card.data.base_model is None
    assert len(hub.repos["tester/tagger"].branches["main"]) == 2
    # Tags of one model are no other's.
    assert set(ElmoModel.model_tags) == TAGS


def test_save_pretrained_with_a_push(hub, tagger, tmp_path):
    tagger.save_pretrained(tmp_path / "saved", push_to_hub=True, repo_id="tester/tagger")
    assert set(check_card(card_of(hub, "tester/tagger")).data.tags) == TAGS
    assert (tmp_path / "saved" / "README.md").read_bytes() == hub.read("tester/tagger", "README.md")


def test_a_card_that_somebody_wrote_is_kept(hub, tagger):
    api = HfApi(endpoint=hub.url, token=TOKEN)
    api.create_repo("tester/tagger")
    mine = b"---\nlibrary_name: transformers\nlicense: mit\n---\n\n# Mine\n"
    api.upload_file(path_or_fileobj=mine, path_in_repo="README.md", repo_id="tester/tagger")
    tagger.push_to_hub("tester/tagger")
    card = card_of(hub, "tester/tagger")
    assert card.data.license == "mit"
    assert card.text.strip() == "# Mine"
    assert set(card.data.tags) == TAGS


def test_a_model_that_was_made_of_another_one(hub, tiny_model_folder):
    ElmoModel.from_pretrained(tiny_model_folder).push_to_hub("tester/base")
    ElmoTokenizer.from_pretrained(tiny_model_folder).push_to_hub("tester/base")
    base = check_card(card_of(hub, "tester/base"))
    assert base.data.pipeline_tag == "feature-extraction"
    assert "in the place of the name" not in base.text
    model = AutoModelForTokenClassification.from_pretrained("tester/base", num_labels=2)
    model.push_to_hub("tester/tuned")
    assert check_card(card_of(hub, "tester/tuned")).data.base_model == "tester/base"
    # Pushed again, a model is no base of itself, and its card is there.
    before = hub.read("tester/base", "README.md")
    ElmoModel.from_pretrained("tester/base").push_to_hub("tester/base")
    assert hub.read("tester/base", "README.md") == before


def test_a_trainer(hub, tagger, tmp_path):
    tokenizer = ElmoTokenizer.create(["A", "cat"], max_characters_per_token=8)
    words = tokenizer([["A", "cat"]] * 4, is_split_into_words=True)
    rows = Dataset.from_dict({**words, "labels": [[-100, 1, 2, -100]] * 4})
    trainer = Trainer(
        model=tagger,
        args=TrainingArguments(
            str(tmp_path / "run"), hub_model_id="tester/tagger", hub_token=TOKEN, max_steps=1, report_to="none",
            use_cpu=True, disable_tqdm=True,
        ),
        train_dataset=rows,
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
    )  # fmt: skip
    trainer.train()
    trainer.push_to_hub(license="mit")
    card = card_of(hub, "tester/tagger")
    # The Trainer names no task, which the hub then knows by the architecture.
    assert check_metadata(str(card).encode(), "The card") == ["The card has no pipeline_tag"]
    assert set(card.data.tags) >= TAGS
    assert card.data.license == "mit"


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return save_translator(tmp_path_factory.mktemp("writes") / "translator")


class TestModelsThatWrite:
    def test_push(self, hub, translator, tmp_path):
        """Without its code, which is the code that it was saved with on the hub; it writes the same from there."""
        folder = shutil.copytree(translator, tmp_path / "model", ignore=shutil.ignore_patterns("*.py"))
        for name in ("config.json", "tokenizer_config.json"):
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            content.pop("auto_map")
            content.pop("custom_pipelines", None)
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        push(folder, "tester/writer")
        saved = {path.relative_to(translator).as_posix() for path in translator.rglob("*") if path.is_file()}
        assert hub.files("tester/writer").keys() == saved | {"README.md", ".gitattributes"}
        for name in ("config.json", "tokenizer_config.json"):
            there, before = (
                json.loads(text) for text in (hub.read("tester/writer", name), (translator / name).read_bytes())
            )
            assert there == before
        for name in saved:
            if name.endswith((".py", "tokenizer.json", ".safetensors")):
                assert hub.read("tester/writer", name) == (translator / name).read_bytes(), name
        texts = []
        for source in (translator, "tester/writer"):
            tokenizer = AutoTokenizer.from_pretrained(source)
            model = AutoModelForSeq2SeqLM.from_pretrained(source)
            written = model.generate(**tokenizer(SOURCES, padding=True, return_tensors="pt"), max_new_tokens=9)
            texts.append(tokenizer.batch_decode(written))
        assert texts[0] == texts[1]

    def test_its_card(self, hub, translator):
        push(translator, "tester/writer")
        card = check_card(card_of(hub, "tester/writer"))
        assert card.data.pipeline_tag == "text2text-generation"
        assert 'AutoModelForSeq2SeqLM.from_pretrained("tester/writer", trust_remote_code=True)' in card.text
        # Less than the decoder's 48 positions, of which one is the start.
        assert "num_beams=4, max_new_tokens=47)" in card.text
        weights = load_file(translator / "model.safetensors")
        count = sum(each.numel() for name, each in weights.items() if name.startswith("decoder."))
        assert f"| decoder | {count:,} |" in card.text
        assert f"| all | {sum(each.numel() for each in weights.values()):,} |" in card.text
        assert "The decoder has 300 tokens, and writes at most 47 of them." in card.text
        assert "AutoModel.from_pretrained" not in card.text

    def test_push_to_hub(self, hub, translator):
        ElmoEncoderDecoderModel.from_pretrained(translator).push_to_hub("tester/writer", tags=["mine"])
        card = check_card(card_of(hub, "tester/writer"))
        assert "[More Information Needed]" not in str(card)
        assert card.data.pipeline_tag == "text2text-generation"
        assert "mine" in card.data.tags

    def test_the_command(self, translator, tmp_path):
        """What a card says of its task stays."""
        folder = shutil.copytree(translator, tmp_path / "model")
        (folder / "README.md").write_text("---\npipeline_tag: translation\nlicense: mit\n---\nText\n", encoding="utf-8")
        result = CliRunner().invoke(app, ["card", str(folder), "--overwrite"])
        assert result.exit_code == 0, result.output
        card = check_card(folder / "README.md")
        assert (card.data.pipeline_tag, card.data.license) == ("translation", "mit")
        described = CliRunner().invoke(app, ["info", str(folder), "--json"])
        assert json.loads(described.stdout)["decoder"]["max_position_embeddings"] == 48

    def test_damaged_folders_are_not_pushed(self, hub, translator, tmp_path):
        def lose_decoder(folder):
            weights = load_file(folder / "model.safetensors")
            kept = {name: each for name, each in weights.items() if not name.startswith("decoder.")}
            save_file(kept, folder / "model.safetensors", {"format": "pt"})

        damages = {
            "has no target_tokenizer": lambda folder: shutil.rmtree(folder / "target_tokenizer"),
            "The weights in .* are not those of its config.json": lose_decoder,
        }
        for number, (message, damage) in enumerate(damages.items()):
            folder = shutil.copytree(translator, tmp_path / str(number))
            damage(folder)
            result = CliRunner().invoke(app, ["push", str(folder), "tester/writer"])
            assert result.exit_code == 1
            assert re.search(message, result.stderr), result.stderr
        assert "tester/writer" not in hub.repos
