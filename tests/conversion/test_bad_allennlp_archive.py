"""Archives of AllenNLP that are damaged, hostile or of something else: one clear error, no code run, nothing left."""

import gzip
import io
import json
import pickle
import tarfile
import zipfile

import pytest
import torch
from allennlp_format import (
    BIO,
    CONFIG,
    EMBEDDER,
    VOCABULARY,
    as_tensors,
    changed,
    elmo_state,
    members_of,
    tagger_state,
    write_archive,
)
from original_format import OPTIONS, options_with

from hf_elmo.conversion import ConversionError, convert_allennlp_archive, load_allennlp_tagger

ELMO = f"{EMBEDDER}elmo._elmo._elmo_lstm."
EMBEDDERS = "model__text_field_embedder__token_embedders__"
INDEXERS = "dataset_reader__token_indexers__"


@pytest.fixture
def refuse(tmp_path, monkeypatch):
    """Converts an archive, expects to be refused with a message that has all the parts, and looks for leftovers."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def check(source, *parts, **kwargs):
        before = {entry: entry.read_bytes() if entry.is_file() else None for entry in tmp_path.rglob("*")}
        with pytest.raises(ConversionError) as caught:
            convert_allennlp_archive(source, tmp_path / "new" / "out", **kwargs)
        message = str(caught.value)
        for part in (str(source), *parts):
            assert part in message, message
        assert len(message) < 5000
        assert str(temporary) not in message
        assert {entry: entry.read_bytes() if entry.is_file() else None for entry in tmp_path.rglob("*")} == before

    return check


@pytest.fixture
def refuse_members(tmp_path, refuse):
    def check(members, *parts, **kwargs):
        refuse(write_archive(tmp_path / "model.tar.gz", members), *parts, **kwargs)

    return check


@pytest.fixture(scope="module")
def members():
    return members_of()


# --- the archive ---


class TestArchive:
    def with_member(self, tmp_path, **fields):
        """An archive of one more member, which comes first."""
        member = tarfile.TarInfo("extra")
        for name, value in fields.items():
            setattr(member, name, value)
        path = write_archive(tmp_path / "whole.tar.gz", members_of())
        with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as archive, tarfile.open(path) as whole:
            archive.addfile(member, io.BytesIO(b"x" * member.size))
            for other in whole:
                archive.addfile(other, whole.extractfile(other) if other.isreg() else None)
        path.unlink()
        return tmp_path / "model.tar.gz"

    @pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "a/../../evil", "C:evil", "..\\evil"])
    def test_a_name_that_leads_out(self, tmp_path, refuse, name):
        refuse(self.with_member(tmp_path, name=name, size=1), "leads out of the archive")

    @pytest.mark.parametrize("kind", ["SYMTYPE", "LNKTYPE", "CHRTYPE", "BLKTYPE", "FIFOTYPE"])
    def test_links_and_devices(self, tmp_path, refuse, kind):
        source = self.with_member(tmp_path, type=getattr(tarfile, kind), linkname="/etc/passwd")
        refuse(source, "'extra'", "is a link, a device or a sparse file")

    def test_a_link_in_the_place_of_the_weights(self, tmp_path, refuse):
        source = self.with_member(tmp_path, name="weights.th", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        refuse(source, "'weights.th'", "is a link")

    def test_a_name_twice(self, tmp_path, refuse):
        refuse(self.with_member(tmp_path, name="config.json", size=2), "'config.json' is there twice")

    def test_a_bomb(self, tmp_path, refuse, members):
        with gzip.open(tmp_path / "model.tar.gz", "wb") as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
            member = tarfile.TarInfo("config.json")
            member.size = 66 * 1024**2
            archive.addfile(member, _Zeros(member.size))
        refuse(tmp_path / "model.tar.gz", "unpacks to more than 67,108,864 bytes")

    @pytest.mark.parametrize("share", [0.0001, 0.3, 0.9, 0.999])
    def test_cut_off(self, tmp_path, refuse, members, share):
        whole = write_archive(tmp_path / "model.tar.gz", members).read_bytes()
        (tmp_path / "model.tar.gz").write_bytes(whole[: max(2, int(len(whole) * share))])
        refuse(tmp_path / "model.tar.gz")

    def test_gzip_of_something_else(self, tmp_path, refuse):
        (tmp_path / "model.tar.gz").write_bytes(gzip.compress(b"words\n" * 1000, mtime=0))
        refuse(tmp_path / "model.tar.gz", "is not a whole tar archive")

    def test_damaged_anywhere(self, tmp_path, members):
        """Whatever byte is turned over is noticed, but for the date in the header of gzip, and the like."""
        whole = write_archive(tmp_path / "model.tar.gz", members).read_bytes()
        for place in [*range(4), *range(20, len(whole), len(whole) // 60), *range(len(whole) - 8, len(whole))]:
            damaged = bytearray(whole)
            damaged[place] ^= 0xFF
            (tmp_path / "model.tar.gz").write_bytes(damaged)
            with pytest.raises(ConversionError):
                load_allennlp_tagger(tmp_path / "model.tar.gz")

    @pytest.mark.parametrize("name", ["config.json", "weights.th"])
    def test_a_missing_part(self, refuse_members, members, name):
        refuse_members({key: value for key, value in members.items() if key != name}, f"has no {name}")

    def test_a_missing_namespace(self, refuse_members, members):
        rest = {key: value for key, value in members.items() if key != "vocabulary/labels.txt"}
        refuse_members(rest, "has no vocabulary/labels.txt; there is: vocabulary/non_padded_namespaces.txt")

    def test_something_at_the_destination(self, tmp_path, members):
        source = write_archive(tmp_path / "model.tar.gz", members)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").touch()
        with pytest.raises(ConversionError, match="is not empty"):
            convert_allennlp_archive(source, tmp_path / "out")
        assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["mine.txt"]


class _Zeros(io.RawIOBase):
    def __init__(self, size):
        self.rest = size

    def read(self, size=-1):
        size = min(self.rest, size)
        self.rest -= size
        return bytes(size)


# --- the weights ---


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


class TestWeights:
    @pytest.mark.parametrize("form", ["torch", "old torch", "pickle", "among tensors"])
    def test_a_payload(self, tmp_path, refuse_members, members, form):
        victim, stream = tmp_path / "victim", io.BytesIO()
        if form == "pickle":
            pickle.dump(Payload(victim), stream)
        else:
            content = {**tagger_state(), "extra": Payload(victim)} if form == "among tensors" else Payload(victim)
            torch.save(content, stream, _use_new_zipfile_serialization=form != "old torch")
        refuse_members({**members, "weights.th": stream.getvalue()}, "weights.th")
        assert not victim.exists()

    def test_packed_parts(self, refuse_members, members):
        stream = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(members["weights.th"])) as whole,
            zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed,
        ):
            for member in whole.infolist():
                packed.writestr(member.filename, whole.read(member))
        refuse_members({**members, "weights.th": stream.getvalue()}, "is packed", "torch.save never")

    @pytest.mark.parametrize("content", [b"", b"no weights", b"\x80\x02}q\x00."])
    def test_no_weights(self, refuse_members, members, content):
        refuse_members({**members, "weights.th": content}, "weights.th")

    def test_no_dictionary(self, refuse_members, members):
        stream = io.BytesIO()
        torch.save([torch.ones(3)], stream)
        refuse_members({**members, "weights.th": stream.getvalue()}, "must hold a state dict", "a list")

    @pytest.mark.parametrize("key", sorted(tagger_state()))
    def test_a_missing_key(self, refuse_members, key):
        state = tagger_state()
        del state[key]
        # What names the ELMo, and counts its layers, is missed otherwise than by its name.
        special = {
            f"{ELMO}_token_embedder._char_embedding_weights": "holds no ELMo",
            f"{ELMO}_elmo_lstm.forward_layer_1.state_linearity.weight": "surplus",
            f"{ELMO}_token_embedder.char_conv_1.weight": "surplus",
            f"{ELMO}_token_embedder.char_conv_2.weight": "surplus",
            f"{ELMO}_token_embedder._highways._layers.0.weight": "surplus",
            f"{ELMO}_token_embedder._highways._layers.1.weight": "surplus",
        }
        refuse_members(members_of(state=state), special.get(key, key))

    @pytest.mark.parametrize("place", [ELMO, f"{EMBEDDER}elmo._elmo.scalar_mix_0.", "crf.", "", f"{EMBEDDER}tokens."])
    def test_a_surplus_key(self, refuse_members, place):
        refuse_members(
            members_of(state=tagger_state() | as_tensors({f"{place}zebra": [1.0]})), f"surplus: {place}zebra"
        )

    @pytest.mark.parametrize(
        ("key", "shape"),
        [
            (f"{ELMO}_token_embedder._char_embedding_weights", (261, 4)),
            (f"{ELMO}_token_embedder._projection.weight", (18, 6)),
            (f"{ELMO}_token_embedder.char_conv_0.weight", (4, 4)),
            (f"{ELMO}_elmo_lstm.backward_layer_0.state_linearity.bias", (79,)),
            (f"{EMBEDDER}elmo._elmo.scalar_mix_0.gamma", ()),
            (f"{EMBEDDER}tokens.weight", (3, 3)),
            (f"{EMBEDDER}tokens.weight", (8, 4)),
            (f"{EMBEDDER}token_characters._embedding._module.weight", (5, 4)),
            ("encoder._module.weight_ih_l0", (16, 24)),
            ("crf.transitions", (4, 4)),
            ("crf._constraint_mask", (5, 5)),
            ("tag_projection_layer._module.weight", (5, 9)),
        ],
    )
    def test_another_shape(self, refuse_members, key, shape):
        refuse_members(members_of(state=tagger_state() | {key: torch.ones(shape)}), key, str(tuple(shape)))

    @pytest.mark.parametrize("key", [f"{ELMO}_token_embedder.char_conv_0.bias", "crf.transitions"])
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, refuse_members, key, value):
        state = tagger_state()
        state[key].view(-1)[1] = value
        refuse_members(members_of(state=state), f"not a number: {key} (1 of {state[key].numel()} values)")

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64])
    def test_another_dtype(self, refuse_members, dtype):
        state = tagger_state()
        state["crf.transitions"] = state["crf.transitions"].to(dtype)
        refuse_members(members_of(state=state), "not float32: crf.transitions")

    def test_values_that_are_claimed(self, refuse_members):
        state = tagger_state() | {f"{EMBEDDER}tokens.weight": torch.ones(1).expand(10**12, 3)}
        refuse_members(members_of(state=state), f"unreadable: {EMBEDDER}tokens.weight (claims 3,000,000,000,000 values")

    def test_no_tensor(self, refuse_members):
        refuse_members(members_of(state=tagger_state() | {"crf.transitions": "text"}), "crf.transitions (a str, not a")

    def test_two_elmos(self, refuse_members):
        state = tagger_state() | elmo_state("other.")
        refuse_members(members_of(state=state), "holds 2 ELMos", "other._elmo_lstm.")

    def test_no_elmo(self, refuse_members):
        refuse_members(members_of({"model": {"type": "esim"}}, as_tensors({"w": [1.0]})), "holds no ELMo", "'esim'")

    def test_options_of_another_elmo(self, refuse_members, members):
        options = options_with(dim=21)
        refuse_members(members, "The options is not of the ELMo in", "cell_size is 21", "20", options=options)
        refuse_members(members, "activation", options=options_with(activation="gelu"))
        refuse_members({**members, "options.json": b"[]"}, "must hold a JSON object")
        assert OPTIONS["lstm"]["dim"] == 20


# --- the configuration ---

UNSUPPORTED = {
    "another feed-forward": (
        {"model__feedforward": {"input_dim": 8, "num_layers": 1, "hidden_dims": 3, "activations": "prelu"}},
        "model.feedforward has the hidden_dims [3] and the activations ['prelu']",
    ),
    "an encoder of no layer": ({"model__encoder__num_layers": 0}, "model.encoder.num_layers is 0, expected 1 to 100"),
    "an encoder of a billion layers": ({"model__encoder__num_layers": 10**9}, "num_layers is 1,000,000,000"),
    "an encoder of no size": ({"model__encoder__hidden_size": -4}, "task_encoder_size"),
    "another nonlinearity": (
        {"model__encoder__type": "rnn", "model__encoder__nonlinearity": "gelu"},
        "nonlinearity must be tanh or relu, was: 'gelu'",
    ),
    "an alternating LSTM without layers": (
        {"model__encoder": {"type": "alternating_lstm", "input_size": 25, "hidden_size": 4}},
        "the key model.encoder.num_layers is missing",
    ),
    "an augmented LSTM with layers": (
        {"model__encoder": {"type": "augmented_lstm", "input_size": 25, "hidden_size": 4, "num_layers": 2}},
        "options that are not known here",
        "num_layers",
    ),
    "a feed-forward encoder of nothing": (
        {"model__encoder": {"type": "feedforward"}},
        "model.encoder.feedforward is missing",
    ),
    "a feed-forward encoder of another size": (
        {
            "model__encoder": {
                "type": "feedforward",
                "feedforward": {"input_dim": 24, "num_layers": 1, "hidden_dims": 3, "activations": "relu"},
            }
        },
        "model.encoder.feedforward.input_dim is 24",
    ),
    "too few feed-forward layers": (
        {"model__feedforward": {"input_dim": 8, "num_layers": 2, "hidden_dims": [3], "activations": "relu"}},
        "model.feedforward.hidden_dims must be 2 values, or one, was: [3]",
    ),
    "label_weights": ({"model__label_weights": {"O": 0.1}}, "model.label_weights"),
    "an unknown option": ({"model__surprise": 1}, "options that are not known here", "surprise"),
    **{
        kind: (
            {"model__encoder__type": kind},
            f"model.encoder.type is '{kind}'",
            "supported are 'lstm', 'gru', 'rnn', ",
        )
        for kind in ("compose", "gated-cnn-encoder", "pytorch_transformer", "stacked_self_attention", "stacked_gru")
    },
    "no encoder": ({"model__encoder": ...}, "the key model.encoder is missing"),
    "a stateful encoder": ({"model__encoder__stateful": True}, "model.encoder.stateful is True"),
    "another input size": ({"model__encoder__input_size": 24}, "model.encoder.input_size is 24"),
    "a hidden size in words": (
        {"model__encoder__hidden_size": "200"},
        "hidden_size must be a whole number, was",
    ),
    "an embedder": ({f"{EMBEDDERS}tokens__type": "bag_of_word_counts"}, "'bag_of_word_counts'"),
    "a second embedding": ({f"{EMBEDDERS}zweite": {"embedding_dim": 3}}, "zweite is a second embedding"),
    "a projection of ELMo to less than nothing": (
        {f"{EMBEDDERS}elmo__projection_dim": -1, "model__encoder__input_size": 12},
        "elmo_projection_size",
    ),
    "a projection of ELMo in words": (
        {f"{EMBEDDERS}elmo__projection_dim": "7"},
        "projection_dim must be a whole number",
    ),
    "a projection of words": ({f"{EMBEDDERS}tokens__projection_dim": 7}, "tokens.projection_dim is 7"),
    "words of a largest norm": ({f"{EMBEDDERS}tokens__max_norm": 1.0}, "tokens.max_norm is 1.0"),
    "another CNN": ({f"{EMBEDDERS}token_characters__encoder__type": "boe"}, "encoder.type is 'boe'"),
    "a projected CNN": ({f"{EMBEDDERS}token_characters__encoder__output_dim": 9}, "encoder.output_dim is 9"),
    "another activation": (
        {f"{EMBEDDERS}token_characters__encoder__conv_layer_activation": "tanh"},
        "conv_layer_activation is 'tanh'",
    ),
    "a filter wider than words": (
        {f"{EMBEDDERS}token_characters__encoder__ngram_filter_sizes": [2, 51]},
        "width 51 does not fit",
    ),
    "other words": ({f"{INDEXERS}tokens__feature_name": "pos_"}, "feature_name is 'pos_'"),
    "end tokens": ({f"{INDEXERS}tokens__end_tokens": ["@end@"]}, "end_tokens is ['@end@']"),
    "bytes": (
        {f"{INDEXERS}token_characters__character_tokenizer": {"byte_encoding": "utf-8"}},
        "byte_encoding is 'utf-8'",
    ),
    "no indexers": ({"dataset_reader": {"type": "x"}}, "dataset_reader.token_indexers must be a JSON object"),
    "an indexer for nothing": ({f"{INDEXERS}tokens": ...}, "dataset_reader.token_indexers.tokens must be a JSON"),
    "embedders in a list": ({"model__text_field_embedder": []}, "model.text_field_embedder must be a JSON object"),
    "a mix of another size": (
        {f"{EMBEDDERS}elmo__scalar_mix_parameters": [1.0]},
        "scalar_mix_parameters must be 3 numbers",
    ),
}


@pytest.mark.parametrize(
    ("changes", "parts"), [(entry[0], entry[1:]) for entry in UNSUPPORTED.values()], ids=UNSUPPORTED
)
def test_a_tagger_with_something_else(refuse_members, changes, parts):
    refuse_members(members_of(changed(**changes), tagger_state()), "config.json", *parts)


OTHER_ARRAYS = {
    "an encoder larger than its arrays": (
        {"model__encoder__hidden_size": 10**6},
        "weight_ih_l0 (is (16, 25), expected (4000000, 25))",
    ),
    "an alternating LSTM that is none": (
        {"model__encoder": {"type": "alternating_lstm", "input_size": 25, "hidden_size": 4, "num_layers": 1}},
        "missing: encoder._module.layer_0.input_linearity.bias",
    ),
    "an LSTM without bias that has one": ({"model__encoder__bias": False}, "surplus: encoder._module.bias_hh_l0, "),
    "a projection of ELMo that is missing": (
        {f"{EMBEDDERS}elmo__projection_dim": 12},
        "missing: text_field_embedder.token_embedder_elmo._projection.bias, ",
    ),
}


@pytest.mark.parametrize(("changes", "part"), OTHER_ARRAYS.values(), ids=OTHER_ARRAYS)
def test_arrays_of_another_tagger(refuse_members, changes, part):
    refuse_members(members_of(changed(**changes), tagger_state()), "weights.th", part)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "is no JSON file"),
        (b"// jsonnet\n{}", "is no JSON file"),
        (b"[1]", "must hold a JSON object"),
        (b'{"model": NaN}', "NaN is no number of JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"model": "\xff"}', "is no JSON file"),
    ],
)
def test_no_configuration(refuse_members, members, content, part):
    refuse_members({**members, "config.json": content}, "config.json", part)


# --- the vocabulary ---


@pytest.mark.parametrize(
    ("entries", "parts"),
    [
        ([], ["labels.txt is empty"]),
        (["O", "O"], ["labels.txt, line 2: 'O' stands there twice"]),
        (BIO[:4], ["crf._constraint_mask", "There are 4 labels"]),
        (["O", "B-PER", "I-PER", "I-LOC", "B-LOC"], ["is not that of the labels' scheme"]),
        (["O", "B-PER", "M-PER", "E-PER", "S-PER"], ["follows no scheme known here", "BIO and BIOUL can be converted"]),
    ],
    ids=["empty", "twice", "too few", "swapped", "another scheme"],
)
def test_labels(refuse_members, entries, parts):
    refuse_members(members_of(vocabulary=VOCABULARY | {"labels": entries}), *parts)


@pytest.mark.parametrize("encoding", ["IOB1", "BMES"])
def test_a_scheme_that_is_not_known(refuse_members, encoding):
    state = tagger_state()
    state["crf._constraint_mask"][0, 2] = 1
    refuse_members(
        members_of(changed(model__label_encoding=encoding), state),
        f"label_encoding is '{encoding}'",
        "IOB1 and BMES not",
        "in the transitions: O to I-PER",
    )


@pytest.mark.parametrize("namespace", ["tokens", "token_characters"])
def test_words_and_characters(refuse_members, members, namespace):
    path = f"vocabulary/{namespace}.txt"
    refuse_members({**members, path: b"the\nparis\n"}, f"{path} has no entry '@@UNKNOWN@@'")
    refuse_members({**members, path: b""}, f"{path} is empty")
    refuse_members({**members, path: b"@@UNKNOWN@@\na\na\n"}, f"{path}, line 3: 'a' stands there twice")
    refuse_members({**members, path: "@@UNKNOWN@@\nnaïve\n".encode("latin-1")}, f"{path}, line 2: the byte 0xef")


def test_a_tagger_is_asked_for(tmp_path):
    source = write_archive(tmp_path / "model.tar.gz", members_of({"model": {"type": "bidaf"}}, tagger_state()))
    with pytest.raises(ConversionError, match=r"model.type is 'bidaf', expected crf_tagger or simple_tagger"):
        load_allennlp_tagger(source)


def test_a_configuration_that_was_changed_is_whole(members):
    """The archives above differ from this one in what they are refused for."""
    assert json.loads(members["config.json"]) == CONFIG
