"""A dataset on the hub as an input: streamed, kept with its commit, and noticed when it changes."""

import json

import datasets
import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dataset_hub import NAME, DatasetHub
from huggingface_hub.utils import close_session

from hf_elmo import Embedder, embed_corpus

TEXTS = ["I read the book.", "", "Yes!", "He read it, she did not.", "two words"]


def parquet(texts):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": range(len(texts)), "body": texts}), sink, row_group_size=2)
    return sink.getvalue().to_pybytes()


@pytest.fixture(params=["jsonl", "parquet"])
def hub(request, tmp_path, monkeypatch):
    lines = "".join(json.dumps({"id": number, "body": text}) + "\n" for number, text in enumerate(TEXTS))
    kinds = {"jsonl": {"texts.jsonl": lines.encode()}, "parquet": {"texts.parquet": parquet(TEXTS)}}
    with DatasetHub({"README.md": b"# Texts\n", **kinds[request.param]}).running() as hub:
        constants = huggingface_hub.constants
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url, 1)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.url)
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr(datasets.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        monkeypatch.setenv("NO_PROXY", "*")
        close_session()
        yield hub
        close_session()


def test_it_is_streamed(hub, tmp_path, tiny_model_folder):
    embedder = Embedder(tiny_model_folder)
    options = {"text_column": "body", "columns": ["id"], "shard_rows": 2}
    manifest = embed_corpus(NAME, tmp_path / "out", embedder, **options)
    assert manifest["inputs"] == [{"name": NAME, "revision": hub.sha}]
    table = pq.read_table(tmp_path / "out" / "data")
    assert table["id"].to_pylist() == list(range(len(TEXTS)))
    for row, expected in zip(table.to_pylist(), embedder.embed(TEXTS), strict=True):
        assert row["words"] == expected.words
        np.testing.assert_allclose(np.array(row["vectors"]).reshape(-1, 32), expected.vectors, atol=1e-5)


def test_a_change_there_is_noticed(hub, tmp_path, tiny_model_folder):
    options = {"text_column": "body", "shard_rows": 2}
    embed_corpus(NAME, tmp_path / "out", Embedder(tiny_model_folder), process=0, processes=2, **options)
    before = hub.sha
    hub.files["README.md"] = b"# Other texts\n"
    with pytest.raises(ValueError, match=f"inputs was .*{before}.*{hub.sha}"):
        embed_corpus(NAME, tmp_path / "out", Embedder(tiny_model_folder), process=1, processes=2, **options)


def test_what_is_not_there(hub, tmp_path, tiny_model_folder):
    with pytest.raises(ValueError, match="no file or folder tester/none, and as one of the hub it cannot be opened"):
        embed_corpus("tester/none", tmp_path / "out", Embedder(tiny_model_folder))
    assert not (tmp_path / "out").exists()
