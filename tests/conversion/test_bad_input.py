"""Files that are no ELMo in the original format: one clear error that names file and key, and nothing left behind."""

import gzip
import json
import re
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy_elmo import random_weights
from original_format import OPTIONS, options_with, write_arrays, write_original

from hf_elmo import ElmoModel
from hf_elmo.conversion import ConversionError, convert_from_folder, convert_to_folder, load_bilm, save_bilm

ARRAYS = random_weights(OPTIONS, seed=1)
CELL = "RNN_0/RNN/MultiRNNCell/Cell1/LSTMCell"


@pytest.fixture
def folder(tmp_path):
    """A good model in the original format, to be spoilt."""
    return write_original(tmp_path / "model", OPTIONS, ARRAYS)


@pytest.fixture
def refuse(tmp_path, monkeypatch):
    """Converts, expects to be refused with a message that has all the given parts in it, and looks for leftovers."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def check(source, *parts, destination=None, **kwargs):
        before = snapshot(tmp_path)
        with pytest.raises(ConversionError) as caught:
            convert_to_folder(source, destination or tmp_path / "new" / "out", **kwargs)
        message = str(caught.value)
        for part in parts:
            assert part in message, message
        assert len(message) < 5000
        assert str(temporary) not in message
        assert snapshot(tmp_path) == before

    return check


def snapshot(folder):
    return {entry: entry.read_bytes() if entry.is_file() else None for entry in folder.rglob("*")}


def damaged_at(place, data, path, source):
    """Whether a byte turned over is noticed; anything but a ConversionError is raised."""
    damaged = bytearray(data)
    damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    try:
        load_bilm(source)
    except ConversionError:
        return True
    return False


class TestWeights:
    """Spoilt files of weights."""

    @pytest.fixture
    def spoil(self, folder, refuse):
        def check(change, *parts):
            with h5py.File(folder / "weights.hdf5", "r+") as file:
                change(file)
            refuse(folder, str(folder / "weights.hdf5"), *parts)

        return check

    @pytest.mark.parametrize("key", sorted(ARRAYS))
    def test_a_missing_key(self, spoil, key):
        spoil(lambda file: file.pop(key), f"missing: {key}")

    def test_surplus_keys(self, spoil):
        def change(file):
            file["CNN/W_cnn_3"] = np.zeros((1, 4, 4, 2), np.float32)
            file["CNN_high_2/b_carry"] = np.zeros(18, np.float32)

        spoil(change, "surplus: CNN/W_cnn_3, CNN_high_2/b_carry")

    def test_a_surplus_group(self, spoil):
        spoil(lambda file: file.create_group("lm/softmax"), "surplus: lm/softmax/", "a group without content")

    def test_all_problems_at_once_and_sorted(self, spoil):
        def change(file):
            for key in ("char_embed", "CNN/b_cnn_1", f"{CELL}/B", "CNN_proj/W_proj", "CNN_proj/b_proj"):
                del file[key]
            file["zebra"] = file["ant"] = np.zeros(1, np.float32)
            file["CNN/b_cnn_1"] = np.zeros(7, np.float32)
            file[f"{CELL}/B"] = np.zeros(80)
            file["CNN_proj/W_proj"] = h5py.SoftLink("/CNN/b_cnn_1")

        spoil(
            change,
            "missing: CNN_proj/b_proj, char_embed\n",
            "surplus: ant, zebra\n",
            "unreadable: CNN_proj/W_proj (a SoftLink to '/CNN/b_cnn_1', not a dataset)\n",
            "of another shape: CNN/b_cnn_1 (is (7,), expected (6,))\n",
            f"not float32: {CELL}/B (is float64)",
        )

    @pytest.mark.parametrize(
        ("key", "shape", "expected"),
        [
            # As another port would write it: with the row for padding, or the kernel in torch's order.
            ("char_embed", (262, 4), (261, 4)),
            ("CNN/W_cnn_2", (8, 4, 3), (1, 3, 4, 8)),
            (f"{CELL}/W_0", (80, 12), (12, 80)),
            (f"{CELL}/W_P_0", (20, 20), (20, 6)),
            (f"{CELL}/B", (), (80,)),
            ("CNN_proj/b_proj", (0,), (6,)),
            ("CNN_high_0/W_carry", (17, 18), (18, 18)),
        ],
    )
    def test_another_shape(self, spoil, key, shape, expected):
        def change(file):
            del file[key]
            file[key] = np.ones(shape, np.float32)

        spoil(change, f"of another shape: {key} (is {shape}, expected {expected})")

    @pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "bool", "complex64", "S4"])
    def test_another_dtype(self, spoil, dtype):
        def change(file):
            values = file["CNN_proj/b_proj"][()]
            del file["CNN_proj/b_proj"]
            file["CNN_proj/b_proj"] = np.ones(values.shape).astype(dtype)

        shown = "bytes32" if dtype == "S4" else dtype
        spoil(change, f"not float32: CNN_proj/b_proj (is {shown})")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_values_that_are_not_finite(self, spoil, value):
        def change(file):
            file["CNN_proj/b_proj"][2] = value
            file["CNN/W_cnn_0"][0, 0, :2, 1] = value

        spoil(change, "not a number: CNN/W_cnn_0 (2 of 16 values), CNN_proj/b_proj (1 of 6 values)")

    def test_a_dataset_that_was_never_filled(self, spoil):
        """What a program leaves that is stopped while it dumps its weights."""

        def change(file):
            del file[f"{CELL}/W_0"]
            file.create_dataset(f"{CELL}/W_0", (12, 80), dtype="float32")

        spoil(change, f"unreadable: {CELL}/W_0 (its values were never written)")

    def test_a_dataset_that_claims_to_be_huge(self, folder, refuse):
        (folder / "options.json").write_text(
            json.dumps(options_with(projection_dim=100_000, dim=100_000)), encoding="utf-8"
        )
        with h5py.File(folder / "weights.hdf5", "r+") as file:
            del file["CNN_proj/W_proj"]
            huge = file.create_dataset(
                "CNN_proj/W_proj", (18_000, 100_000), "float32", chunks=(1000, 1000), compression=9
            )
            huge[:1000, :1000] = 0
        refuse(folder, "weights.hdf5", "CNN_proj/W_proj (claims 7,200,000,000 bytes")

    def test_links(self, spoil, tmp_path):
        write_arrays(tmp_path / "other.hdf5", ARRAYS)

        def change(file):
            for key in ("char_embed", "CNN_proj", "CNN_high_1/b_carry"):
                del file[key]
            file["char_embed"] = h5py.ExternalLink(tmp_path / "other.hdf5", "char_embed")
            file["CNN_proj"] = h5py.ExternalLink(tmp_path / "other.hdf5", "CNN_proj")
            file["CNN_high_1/b_carry"] = h5py.SoftLink("/CNN_high_0/b_carry")

        spoil(
            change,
            "CNN_high_1/b_carry (a SoftLink to '/CNN_high_0/b_carry'",
            "CNN_proj (a ExternalLink to 'CNN_proj'",
            "char_embed (a ExternalLink to 'char_embed'",
        )

    def test_values_in_other_files(self, spoil, tmp_path):
        write_arrays(tmp_path / "other.hdf5", ARRAYS)
        (tmp_path / "raw").write_bytes(ARRAYS["CNN_proj/W_proj"].tobytes())

        def change(file):
            del file["char_embed"], file["CNN_proj/W_proj"]
            layout = h5py.VirtualLayout((261, 4), "float32")
            layout[:] = h5py.VirtualSource(tmp_path / "other.hdf5", "char_embed", (261, 4))
            file.create_virtual_dataset("char_embed", layout)
            file.create_dataset("CNN_proj/W_proj", (18, 6), "float32", external=[(tmp_path / "raw", 0, 432)])

        spoil(
            change,
            "char_embed (its values lie in other files)",
            "CNN_proj/W_proj (its values lie in other files)",
        )

    def test_a_group_inside_itself(self, spoil):
        def change(file):
            file["CNN/again"] = file["/"]
            file["CNN/deeper/still"] = file["CNN"]

        spoil(change, "CNN/again (a second name of another group)", "CNN/deeper/still (a second name of another group)")

    def test_other_things_than_datasets(self, spoil):
        def change(file):
            del file["char_embed"], file["CNN_proj/b_proj"], file["CNN_proj/W_proj"]
            file["char_embed"] = np.dtype("float32")
            file["CNN_proj/b_proj"] = h5py.Empty("float32")
            file.create_group("CNN_proj/W_proj")

        spoil(
            change,
            "char_embed (a Datatype, not a dataset)",
            "CNN_proj/b_proj (a dataset without shape)",
            "missing: CNN_proj/W_proj\n",
        )

    def test_damaged_values(self, folder, refuse):
        with h5py.File(folder / "weights.hdf5", "r+") as file:
            del file["CNN_high_0/W_carry"]
            file.create_dataset(
                "CNN_high_0/W_carry", data=ARRAYS["CNN_high_0/W_carry"], chunks=(18, 18), fletcher32=True
            )
            place = file["CNN_high_0/W_carry"].id.get_chunk_info(0).byte_offset
        data = bytearray((folder / "weights.hdf5").read_bytes())
        data[place + 5] ^= 1
        (folder / "weights.hdf5").write_bytes(data)
        refuse(folder, "weights.hdf5: the values of CNN_high_0/W_carry cannot be read")

    @pytest.mark.parametrize("kept", [0.01, 0.3, 0.9, 0.9999])
    def test_cut_off(self, folder, refuse, kept):
        data = (folder / "weights.hdf5").read_bytes()
        (folder / "weights.hdf5").write_bytes(data[: int(len(data) * kept)])
        refuse(folder, str(folder / "weights.hdf5"), "is it whole?")

    def test_damaged_bytes_of_the_head(self, folder):
        """The library's errors for these are of many kinds, hardly any of them documented."""
        data = (folder / "weights.hdf5").read_bytes()
        places = [*range(0, 180, 5), *range(150, 160), *range(690, 710, 2)]
        refused = sum(damaged_at(place, data, folder / "weights.hdf5", folder) for place in places)
        assert 10 < refused < len(places)

    @pytest.mark.parametrize(
        ("content", "part"),
        [
            (b"", "is empty"),
            (
                b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a",
                "it begins with b'version https://git-lfs",
            ),
            (b"<html><body>404</body></html>", "<html>"),
            (bytes(1000), "is not an HDF5 file"),
        ],
    )
    def test_another_kind_of_file(self, folder, refuse, content, part):
        (folder / "weights.hdf5").write_bytes(content)
        refuse(folder, str(folder / "weights.hdf5"), part)
        refuse(folder / "weights.hdf5", str(folder / "weights.hdf5"), part)

    def test_vectors_are_not_weights(self, folder, refuse):
        (folder / "weights.hdf5").unlink()
        vectors = {str(number): np.zeros((3, 5, 12), np.float32) for number in range(300)}
        write_arrays(folder / "elmo_embeddings.hdf5", vectors)
        refuse(folder, "elmo_embeddings.hdf5", "vectors that an ELMo computed for sentences", "and 250 more")

    def test_word_vectors_are_not_weights(self, folder, refuse):
        write_arrays(folder / "weights.hdf5", {"embedding": np.zeros((7, 6), np.float32)})
        refuse(folder, "weights.hdf5", "surplus: embedding", "word vectors")

    @pytest.mark.parametrize(
        ("changes", "part"),
        [
            ({"n_layers": 1}, "surplus: RNN_0/RNN/MultiRNNCell/Cell1/LSTMCell/B"),
            ({"n_layers": 3}, "missing: RNN_0/RNN/MultiRNNCell/Cell2/LSTMCell/B"),
            ({"n_highway": 0}, "surplus: CNN_high_0/W_carry"),
            ({"dim": 6}, f"{CELL}/W_P_0"),
            ({"filters": [[1, 4], [2, 6]]}, "surplus: CNN/W_cnn_2"),
            ({"projection_dim": 5}, "CNN_proj/b_proj (is (6,), expected (5,))"),
        ],
    )
    def test_options_of_another_model(self, folder, refuse, changes, part):
        (folder / "options.json").write_text(json.dumps(options_with(**changes)), encoding="utf-8")
        refuse(folder, str(folder / "weights.hdf5"), part)

    def test_names_that_no_terminal_shows(self, spoil):
        def change(file):
            file["\x1b[31mred"] = np.zeros(1, np.float32)
            file[b"\xff\xfe"] = np.zeros(1, np.float32)

        spoil(change, r"'\x1b[31mred'", r"\xff\xfe")


class TestOptions:
    @pytest.mark.parametrize(
        ("text", "part"),
        [
            ("", "is no JSON file"),
            ('{"lstm": {', "is no JSON file"),
            ("[]", "must hold a JSON object, but holds a list"),
            ("[" * 100_000, "nested too deeply"),
            (json.dumps(OPTIONS).replace('"cell_clip": 3', '"cell_clip": NaN'), "NaN is no number"),
            (json.dumps(OPTIONS).encode("utf-16").decode("latin-1"), "is no JSON file"),
            ('{"lstm": {"dim": 20}}', "has no char_cnn, but the weights"),
            ('{"lstm": 3, "char_cnn": {}}', "is missing"),
        ],
    )
    def test_another_content(self, folder, refuse, text, part):
        (folder / "options.json").write_bytes(text.encode("utf-8"))
        refuse(folder, str(folder / "options.json"), part)

    @pytest.mark.parametrize(
        ("changes", "part"),
        [
            ({"projection_dim": 21}, "projection_dim (21) is larger than cell_size (20)"),
            ({"n_characters": 50}, "n_characters is 50"),
            ({"activation": "gelu"}, "'gelu'"),
            ({"filters": []}, "filters"),
            ({"filters": [[51, 4]]}, "51"),
            ({"filters": {"1": 4}}, "filters"),
            ({"n_layers": 0}, "num_layers"),
            ({"n_layers": "two"}, "two"),
            ({"n_layers": 10**9}, "lstm.n_layers is 1000000000"),
            ({"n_highway": 10**6}, "char_cnn.n_highway is 1000000,"),
            ({"dim": -4}, "cell_size"),
            ({"cell_clip": -3}, "cell_clip"),
            ({"max_characters_per_token": 2.5}, "max_characters_per_token"),
            ({"embedding": 4}, "char_cnn.embedding must be a JSON object"),
        ],
    )
    def test_impossible_values(self, folder, refuse, changes, part):
        (folder / "options.json").write_text(json.dumps(options_with(**changes)), encoding="utf-8")
        refuse(folder, str(folder / "options.json"), part)

    @pytest.mark.parametrize("size", [10**8, 10**17, 10**40])
    @pytest.mark.parametrize(
        "change",
        [
            lambda size: {"dim": size},
            lambda size: {"dim": size, "projection_dim": size},
            lambda size: {"embedding": {"dim": size}},
            lambda size: {"filters": [[1, size]]},
            lambda size: {"filters": [[size, 2]], "max_characters_per_token": size},
        ],
    )
    def test_sizes_that_no_memory_holds(self, folder, refuse, change, size):
        (folder / "options.json").write_text(json.dumps(options_with(**change(size))), encoding="utf-8")
        refuse(folder, str(folder / "options.json"), f"is {size}, expected no more than 1,000,000")

    def test_missing(self, folder, refuse, tmp_path):
        (folder / "options.json").unlink()
        refuse(folder, str(folder), "has no options.json")
        refuse(folder / "weights.hdf5", str(folder), "has no options.json")
        refuse(folder, "nowhere.json is not a file", options=tmp_path / "nowhere.json")


class TestVocabulary:
    @pytest.mark.parametrize(
        ("name", "content", "part"),
        [
            ("vocab.txt", "<S>\nna\xefve\n".encode("latin-1"), "vocab.txt, line 2: the byte 0xef is no UTF-8"),
            ("vocab.txt", "<S>\nthe\n".encode("utf-16"), "vocab.txt, line 1"),
            ("vocab.txt", "the\nof\n".encode("utf-16-le"), "vocab.txt, line 1: a zero byte"),
            ("vocab.txt.gz", gzip.compress(b"the\n" * 1000, mtime=0)[:-9], "vocab.txt.gz is not a sound gzip file"),
            ("vocab.txt.gz", gzip.compress(b"the\n", mtime=0)[:-8] + bytes(8), "vocab.txt.gz is not a sound gzip file"),
            ("vocab.txt.gz", b"\x1f\x8b" + b"x" * 50, "vocab.txt.gz is not a sound gzip file"),
        ],
    )
    def test_another_content(self, folder, refuse, name, content, part):
        (folder / name).write_bytes(content)
        refuse(folder, str(folder), part)

    def test_too_large(self, folder, refuse, monkeypatch):
        monkeypatch.setattr("hf_elmo.conversion.vocabulary._LARGEST", 10_000)
        (folder / "vocab.txt.gz").write_bytes(gzip.compress(bytes(20_000), mtime=0))
        refuse(folder, "vocab.txt.gz", "10,000")

    def test_two(self, folder, refuse):
        (folder / "vocab.txt").write_text("the\n", encoding="utf-8")
        (folder / "vocab.txt.gz").write_bytes(gzip.compress(b"the\n", mtime=0))
        refuse(folder, "both vocab.txt and vocab.txt.gz")

    def test_missing(self, folder, refuse):
        refuse(folder, "nowhere.txt is not a file", vocabulary="nowhere.txt")


class TestPlaces:
    def test_no_source(self, refuse, tmp_path):
        refuse(tmp_path / "nowhere", str(tmp_path / "nowhere"), "does not exist")
        refuse("https://example.org/weights.hdf5", "does not exist")

    def test_a_folder_without_weights(self, refuse, tmp_path):
        (tmp_path / "empty").mkdir()
        refuse(tmp_path / "empty", "has no file of weights", "no file.")
        (tmp_path / "empty" / "model.safetensors").write_bytes(b"x")
        refuse(tmp_path / "empty", "It has: model.safetensors.")

    def test_two_files_of_weights(self, folder, refuse):
        write_arrays(folder / "model.hdf5", ARRAYS)
        refuse(folder, "several files", "model.hdf5, weights.hdf5")

    def test_one_of_two_files_is_cut_off(self, folder, refuse):
        (folder / "model.hdf5").write_bytes((folder / "weights.hdf5").read_bytes()[:5000])
        refuse(folder, "several files", "model.hdf5, weights.hdf5")

    def test_a_destination_that_is_in_use(self, folder, refuse, tmp_path):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.tex").write_text("precious", encoding="utf-8")
        refuse(folder, f"{tmp_path / 'full'} is not empty", destination=tmp_path / "full")
        refuse(folder, "thesis.tex is a file", destination=tmp_path / "full" / "thesis.tex")
        refuse(folder, "is not empty", destination=folder)

    def test_a_destination_that_cannot_be_made(self, folder, tmp_path):
        before = snapshot(tmp_path)
        with pytest.raises(OSError, match=r"options\.json"):
            convert_to_folder(folder, folder / "options.json" / "out")
        assert snapshot(tmp_path) == before

    @pytest.mark.parametrize("exists", [False, True])
    @pytest.mark.parametrize("writer", ["hf_elmo.ElmoModel.save_pretrained", "hf_elmo.ElmoTokenizer.save_pretrained"])
    def test_a_full_disk(self, folder, tmp_path, monkeypatch, writer, exists):
        def fail(self, where, **kwargs):
            (Path(where) / "model.safetensors").write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(writer, fail)
        destination = tmp_path / "a" / "b" / "out"
        if exists:
            destination.mkdir(parents=True)
        before = snapshot(tmp_path)
        with pytest.raises(OSError, match="No space left"):
            convert_to_folder(folder, destination)
        assert snapshot(tmp_path) == before

    @pytest.mark.parametrize("exists", [False, True])
    def test_stopped_while_saving(self, folder, tmp_path, monkeypatch, exists):
        model, _ = load_bilm(folder)
        destination = tmp_path / "out"
        if exists:
            destination.mkdir()
        before = snapshot(tmp_path)
        create = h5py.Group.create_dataset

        def stop(self, name, *args, **kwargs):
            if name == "CNN_proj/b_proj":
                raise KeyboardInterrupt
            return create(self, name, *args, **kwargs)

        monkeypatch.setattr(h5py.Group, "create_dataset", stop)
        with pytest.raises(KeyboardInterrupt):
            save_bilm(model, destination)
        assert snapshot(tmp_path) == before


class TestZips:
    @pytest.fixture
    def pack(self, folder, tmp_path):
        """Packs the good model, and what else is given: names (or ZipInfos) and contents."""

        def make(*members, without=(), path="model.zip"):
            with zipfile.ZipFile(tmp_path / path, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in ("weights.hdf5", "options.json"):
                    if name not in without:
                        archive.write(folder / name, name)
                for name, content in members:
                    archive.writestr(name, content)
            return tmp_path / path

        return make

    @pytest.mark.parametrize(
        "name",
        ["../vocab.txt", "/etc/vocab.txt", "a/../../vocab.txt", "..\\vocab.txt", "C:vocab.txt", "C:/vocab.txt", ".."],
    )
    def test_names_that_lead_out(self, pack, refuse, name):
        refuse(pack((name, "the\n")), "model.zip: the member", "leads out of the archive")

    def test_a_link(self, pack, refuse):
        link = zipfile.ZipInfo("vocab.txt")
        link.external_attr = 0o120777 << 16
        refuse(pack((link, "/etc/passwd")), "'vocab.txt'", "is a link")

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_a_name_twice(self, pack, refuse):
        refuse(pack(("options.json", "{}")), "'options.json' is there twice")

    def test_a_bomb(self, pack, refuse):
        refuse(pack(("vocab.txt", bytes(65 * 1024**2))), "'vocab.txt' claims to be 68,157,440 bytes")

    def test_a_huge_member(self, pack, refuse):
        path = pack(("vocab.txt", "the\n"))
        data = bytearray(path.read_bytes())
        place = data.index(b"PK\x01\x02", data.rindex(b"PK\x01\x02"))
        assert data[place + 46 : place + 55] == b"vocab.txt"
        data[place + 20 : place + 28] = struct.pack("<II", 2**31, 2**32 - 2)
        path.write_bytes(data)
        refuse(path, "'vocab.txt' claims to be 4,294,967,294 bytes")

    def test_a_damaged_member(self, pack, refuse, folder):
        path = pack(without=["weights.hdf5"])
        with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
            archive.write(folder / "weights.hdf5", "model.hdf5")
        data = path.read_bytes()
        values = ARRAYS["CNN_proj/b_proj"].tobytes()
        assert data.count(values) == 1
        path.write_bytes(data.replace(values, bytes(len(values))))
        refuse(path, "the member 'model.hdf5' is damaged", "CRC")

    def test_an_encrypted_member(self, pack, refuse):
        path = pack()
        data = bytearray(path.read_bytes())
        for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            for found in re.finditer(re.escape(signature), bytes(data)):
                data[found.start() + place] |= 1
        path.write_bytes(data)
        refuse(path, "is encrypted")

    def test_damaged_bytes_of_the_directory(self, pack):
        path = pack(("vocab.txt", "the\n"))
        data = path.read_bytes()
        places = [*range(0, 60, 2), *range(data.index(b"PK\x01\x02"), len(data), 3)]
        refused = sum(damaged_at(place, data, path, path) for place in places)
        assert 50 < refused < len(places)

    @pytest.mark.parametrize("kept", [0.5, 0.99])
    def test_cut_off(self, pack, refuse, kept):
        path = pack()
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
        refuse(path, "model.zip is not a whole zip archive")

    def test_no_model_inside(self, pack, refuse):
        path = pack(("README", "x"), without=["weights.hdf5"])
        refuse(path, "model.zip has no file of weights", "It has: options.json")
        refuse(pack(without=["options.json"]), "model.zip has no options.json")
        refuse(pack(without=["options.json", "weights.hdf5"]), "has no file of weights")

    def test_two_models_inside(self, pack, refuse, folder):
        weights = (folder / "weights.hdf5").read_bytes()
        members = [(f"{name}/weights.hdf5", weights) for name in "ab"]
        refuse(pack(*members, without=["options.json", "weights.hdf5"]), "has no file of weights")
        refuse(pack(("model.hdf5", weights)), "several files")

    def test_spoilt_parts_are_named_by_archive_and_member(self, pack, refuse):
        path = pack(("options.json", "{"), without=["options.json"])
        refuse(path, "model.zip: options.json is no JSON file")
        path = pack(("model.hdf5", b"\x89HDF\r\n\x1a\n" + bytes(100)), without=["weights.hdf5"])
        refuse(path, "model.zip: model.hdf5")
        refuse(pack(("vocab.txt", b"\xff")), "model.zip: vocab.txt, line 1")


class TestModelFolders:
    """The way back, from folders that are spoilt."""

    @pytest.fixture
    def model_folder(self, folder, tmp_path):
        convert_to_folder(folder, tmp_path / "good", vocabulary=["the", "of"])
        return tmp_path / "good"

    @pytest.fixture
    def refuse_back(self, tmp_path):
        def check(source, *parts):
            before = snapshot(tmp_path)
            with pytest.raises(ConversionError) as caught:
                convert_from_folder(source, tmp_path / "new" / "out")
            for part in parts:
                assert part in str(caught.value)
            assert snapshot(tmp_path) == before

        return check

    def test_no_model(self, refuse_back, tmp_path, model_folder):
        refuse_back(tmp_path / "nowhere", "nowhere is not a model folder")
        (model_folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
        refuse_back(model_folder, "config.json", "'bert'")
        (model_folder / "config.json").write_text("{", encoding="utf-8")
        refuse_back(model_folder, "config.json is no JSON file")

    def test_weights_missing_or_cut_off(self, refuse_back, model_folder):
        weights = model_folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        refuse_back(model_folder, str(model_folder))
        weights.unlink()
        refuse_back(model_folder, str(model_folder), "model.safetensors")

    def test_pickles_are_not_read(self, refuse_back, model_folder):
        (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
        refuse_back(model_folder, str(model_folder))

    def test_a_parameter_missing(self, refuse_back, model_folder):
        model = ElmoModel.from_pretrained(model_folder)
        state = {key: value for key, value in model.state_dict().items() if "highways.1.carry" not in key}
        model.save_pretrained(model_folder, state_dict=state)
        refuse_back(
            model_folder,
            "missing from model.safetensors: character_encoder.highways.1.carry.bias, character_encoder.",
        )

    def test_a_destination_in_use(self, model_folder):
        with pytest.raises(ConversionError, match="is not empty"):
            convert_from_folder(model_folder, model_folder)
