"""`hf-elmo push`, in this process and with LFS, which can be looked into; `test_hub.py` has the way there and back."""

import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

import huggingface_hub
import pytest
import torch
from hub_server import HubServer
from hub_storage import READ_ONLY_TOKEN, TOKEN
from huggingface_hub.utils import close_session
from saved_code import model_code
from typer.testing import CliRunner

import hf_elmo
from hf_elmo import ElmoForPreTraining, ElmoForQuestionAnswering, ElmoModel, ElmoTokenizer
from hf_elmo.commands.app import app
from hf_elmo.hub.upload_files import files_for_hub
from hf_elmo.model.remote_code import CUSTOM_PIPELINES


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub, which is the only one that huggingface_hub knows."""
    constants = huggingface_hub.constants
    with HubServer(tmp_path / "hub") as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        sleep = huggingface_hub.utils._http.time.sleep
        monkeypatch.setattr(huggingface_hub.utils._http.time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("NO_PROXY", "*")
        close_session()
        yield hub
        close_session()
        assert hub.unknown == []


@pytest.fixture
def push():
    """Runs `hf-elmo push`; what is wrong must be said in one line, without the token."""

    def push(*arguments, status=0):
        result = CliRunner().invoke(app, ["push", *map(str, arguments)])
        assert result.exit_code == status, result.output
        assert TOKEN not in result.output
        if status == 1:
            assert result.stdout == ""
            assert result.stderr.splitlines()[-1].startswith("hf-elmo: ")
            assert "unexpected" not in result.stderr
            assert "Traceback" not in result.stderr
        return result

    return push


@pytest.fixture(scope="module")
def in_shards(tiny_model_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "model"
    ElmoModel.from_pretrained(tiny_model_folder).save_pretrained(folder, max_shard_size="60KB")
    ElmoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(folder)
    for path in folder.glob("*.py"):
        path.unlink()
    assert len(list(folder.glob("*.safetensors"))) >= 2
    return folder


@pytest.fixture
def folder(in_shards, tmp_path):
    """A copy of the small model without code and card, its weights in several files."""
    return shutil.copytree(in_shards, tmp_path / "model")


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unchanged(hub, name="tester/tiny"):
    """Whether the hub has no file of a push."""
    return name not in hub.repos or len(hub.repos[name].branches["main"]) == 1


def test_code_and_card_are_added_on_the_hub_alone(hub, push, folder):
    before = content_of(folder)
    result = push(folder, "tester/tiny", "--commit-message", "First words")
    assert content_of(folder) == before
    assert result.stdout == f"{hub.url}/tester/tiny\n"
    commits = hub.repos["tester/tiny"].branches["main"]
    assert [commit.title for commit in commits] == ["initial commit", "First words"]
    there = {path: hub.read("tester/tiny", path) for path in hub.files("tester/tiny")}
    added = {".gitattributes", "README.md", *model_code()}
    assert there.keys() == before.keys() | added
    assert {path: there[path] for path in model_code()} == model_code()
    for path in before.keys() - {"config.json", "tokenizer_config.json"}:
        assert there[path] == before[path]
    assert "auto_map" in json.loads(there["config.json"])
    assert there["README.md"].startswith(b"---\n")


def test_own_code_and_card_are_kept(hub, push, tiny_model_folder, tmp_path):
    shutil.copytree(tiny_model_folder, tmp_path / "own")
    (tmp_path / "own" / "README.md").write_text(
        "---\nlibrary_name: transformers\nlicense: mit\n---\nMine: Ärger\n", encoding="utf-8"
    )
    with open(tmp_path / "own" / "modeling_elmo.py", "a", encoding="utf-8") as file:
        file.write("# my change\n")
    push(tmp_path / "own", "tester/tiny")
    expected = content_of(tmp_path / "own")
    assert {path: hub.read("tester/tiny", path) for path in expected} == expected
    assert hub.files("tester/tiny").keys() == expected.keys() | {".gitattributes"}


def test_incomplete_code_is_replaced_as_a_whole(tiny_model_folder, tmp_path):
    shutil.copytree(tiny_model_folder, tmp_path / "own")
    (tmp_path / "own" / "bilstm.py").unlink()
    (tmp_path / "own" / "modeling_elmo.py").write_text(
        "# from another version\nfrom .bilstm import BiLstm\n", encoding="utf-8"
    )
    files = files_for_hub(tmp_path / "own")
    assert {file.name: file.read() for file in files if file.name.endswith(".py")} == model_code()


@pytest.mark.parametrize("has_code", [True, False])
def test_question_answerers_alone_have_a_pipeline_for_it(tiny_model_folder, tmp_path, has_code):
    """Also where an older version entered one for every model."""
    for model_class in (ElmoModel, ElmoForQuestionAnswering):
        saved = tmp_path / model_class.__name__
        model_class.from_pretrained(tiny_model_folder).save_pretrained(saved)
        ElmoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(saved)
        if not has_code:
            (saved / "modeling_elmo.py").unlink()
        config = json.loads((saved / "config.json").read_text(encoding="utf-8"))
        config["custom_pipelines"] = CUSTOM_PIPELINES
        (saved / "config.json").write_text(json.dumps(config), encoding="utf-8")
        uploaded = {file.name: file.read() for file in files_for_hub(saved)}
        found = json.loads(uploaded["config.json"]).get("custom_pipelines")
        assert found == (CUSTOM_PIPELINES if model_class is ElmoForQuestionAnswering else None)


def test_what_nobody_needs_stays_here(hub, push, folder):
    for name in ("training_args.bin", ".secret", "optimizer.pt", "checkpoint-5/model.safetensors", ".git/config"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    for name in ("plots/loss.txt", "runs/log.txt", "wandb/run/config.yaml", "mlruns/0"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("loss", encoding="utf-8")
    result = push(folder, "tester/tiny")
    assert "left out: " in result.stderr
    assert "training_args.bin" in result.stderr
    names = hub.files("tester/tiny").keys()
    assert "plots/loss.txt" in names
    leftover = ("training", ".s", "opt", "check", ".git/", "runs", "wandb", "mlruns")
    assert not [name for name in names if name.startswith(leftover)]


KEY_FILES = ["id_rsa", "id_ed25519.pub", "token", "secrets.json", "Server.PEM", "credentials.json", "deep/netrc"]


def test_files_named_as_keys_are_left_out_and_said(hub, push, folder):
    for name in KEY_FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("x", encoding="utf-8")
    for arguments in (["--dry-run"], []):
        (said,) = [line for line in push(folder, "tester/tiny", *arguments).stderr.splitlines() if "left out" in line]
        assert set(said.partition("left out: ")[2].split(", ")) == set(KEY_FILES)
    names = hub.files("tester/tiny").keys()
    assert not names & set(KEY_FILES)
    assert {"tokenizer.json", "tokenizer_config.json"} <= names


def test_code_that_begins_with_an_underscore_goes_along(tiny_model_folder, tmp_path):
    """A folder's own code may import it."""
    own = shutil.copytree(tiny_model_folder, tmp_path / "own")
    (own / "_helper.py").write_text("ANSWER = 42\n", encoding="utf-8")
    with open(own / "modeling_elmo.py", "a", encoding="utf-8") as file:
        file.write("from ._helper import ANSWER\n")
    (own / "__pycache__").mkdir()
    (own / "__pycache__" / "_helper.cpython-311.pyc").write_bytes(b"x")
    (own / "_notes.txt").write_text("x", encoding="utf-8")
    names = [file.name for file in files_for_hub(own)]
    assert "_helper.py" in names
    assert not {"_notes.txt", "__pycache__/_helper.cpython-311.pyc"} & set(names)


def test_links_are_followed_within_the_folder_only(hub, push, folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "log.txt").write_text("loss", encoding="utf-8")
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    try:
        (folder / "plots").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (folder / "log.txt").symlink_to(tmp_path / "elsewhere" / "log.txt")
        (folder / "again.txt").symlink_to("notes.txt")
    except OSError as error:
        pytest.skip(f"links cannot be made here: {error}")
    assert "left out: log.txt, plots\n" in push(folder, "tester/tiny").stderr
    assert hub.read("tester/tiny", "again.txt") == b"mine"
    assert not {"log.txt", "plots/log.txt"} & hub.files("tester/tiny").keys()
    shutil.move(folder / "tokenizer.json", tmp_path / "elsewhere" / "tokenizer.json")
    (folder / "tokenizer.json").symlink_to(tmp_path / "elsewhere" / "tokenizer.json")
    assert "outside of the folder: what lies there is not pushed" in push(folder, "tester/tiny", status=1).stderr


def test_a_snapshot_of_the_hubs_cache_is_pushed(folder, tmp_path):
    """Its files are links to the cache's blobs."""
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / "0123", tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, file in enumerate(path for path in folder.iterdir() if path.is_file()):
        shutil.copy(file, blobs / str(number))
        try:
            (snapshot / file.name).symlink_to(f"../../blobs/{number}")
        except OSError as error:
            pytest.skip(f"links cannot be made here: {error}")
    assert {file.name: file.read() for file in files_for_hub(snapshot)}.keys() >= {
        "config.json",
        "tokenizer.json",
        *(path.name for path in folder.glob("*.safetensors")),
    }


def test_dry_run_shows_all_and_asks_nobody(hub, push, folder, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    before = content_of(folder)
    result = push(folder, "tester/tiny", "--dry-run")
    assert hub.requests == []
    assert content_of(folder) == before
    rows = [line.split("\t") for line in result.stdout.split("\n\n")[0].splitlines()]
    assert rows[0] == ["file", "size", "from"]
    listed = {name: origin for name, _, origin in rows[1:]}
    assert listed.keys() == before.keys() | {"README.md", *model_code()}
    assert listed["modeling_elmo.py"] == "added: code"
    assert listed["README.md"] == "added: card"
    assert "library_name: transformers" in result.stdout
    assert "nothing was sent" in result.stderr


def test_the_bundled_model_can_be_pushed(hub, push):
    try:
        bundled = Path(hf_elmo.bundled())
    except ValueError:
        pytest.skip("no model is bundled")
    before = content_of(bundled)
    push("elmo-mini", "tester/mini")
    assert content_of(bundled) == before
    assert hub.read("tester/mini", "model.safetensors") == before["model.safetensors"]
    assert {path: hub.read("tester/mini", path) for path in model_code()} == model_code()


def test_a_second_push_sends_nothing(hub, push, folder):
    push(folder, "tester/tiny")
    first = hub.counts()
    result = push(folder, "tester/tiny")
    assert "all there already" in result.stderr
    assert hub.counts()["PUT lfs"] == first["PUT lfs"] >= 2
    assert hub.counts()["POST commit"] == 1
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n", encoding="utf-8")
    push(folder, "tester/tiny")
    assert hub.counts()["PUT lfs"] == first["PUT lfs"]
    assert hub.counts()["POST commit"] == 2


def test_a_request_is_counted_before_its_client_has_the_answer(hub, push, folder):
    """Else a busy machine finds one too few in the tests here."""

    class SlowList(list):
        def append(self, each):
            time.sleep(0.1)
            super().append(each)

    hub.requests = SlowList()
    push(folder, "tester/tiny")
    assert hub.counts()["POST commit"] == 1
    hub.drop("POST", "/other/preupload/", times=100)
    push(folder, "tester/other", status=1)
    broken = 100 - hub.faults[0].times
    assert sum("/other/preupload/" in each.path for each in hub.requests) == broken >= 1


def test_weights_of_an_earlier_push_do_not_stay(hub, push, folder, tiny_model_folder, tmp_path):
    """transformers takes `model.safetensors` where it is, even beside an index; others' files are nobody's business."""
    old = ElmoModel.from_pretrained(tiny_model_folder)
    with torch.no_grad():
        old.scalar_mixes[0].gamma.fill_(7.0)
    old.save_pretrained(tmp_path / "old")
    ElmoTokenizer.from_pretrained(tiny_model_folder).save_pretrained(tmp_path / "old")
    others = {"model_old/model.safetensors": b"x", "model-fp16.safetensors": b"y", "notes.txt": b"z"}
    for name, content in others.items():
        (tmp_path / "old" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "old" / name).write_bytes(content)
    shards = {path.name for path in folder.glob("model*")}

    def pushed_weights(source):
        """What is said, the weights that are on the hub now, and the model that they make."""
        result = push(source, "tester/tiny")
        content = {name: hub.read("tester/tiny", name) for name in hub.files("tester/tiny")}
        assert {name: content[name] for name in others} == others
        place = Path(tempfile.mkdtemp(dir=tmp_path))
        for name in content.keys() - others.keys():
            (place / name).write_bytes(content[name])
        weights = {path.name for path in place.glob("model*") if path.suffix != ".py"}
        return result.stderr, weights, ElmoModel.from_pretrained(place)

    said, names, model = pushed_weights(tmp_path / "old")
    assert "deleted" not in said
    assert names == {"model.safetensors"}
    assert model.scalar_mixes[0].gamma.item() == 7.0

    huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN).create_branch("tester/tiny", branch="before")
    said, names, model = pushed_weights(folder)
    assert "deleted there, as weights of an earlier upload: model.safetensors\n" in said
    assert names == shards
    expected = ElmoModel.from_pretrained(tiny_model_folder).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    # That was one commit, and of this branch alone.
    assert [len(commits) for commits in hub.repos["tester/tiny"].branches.values()] == [3, 2]
    assert "model.safetensors" in hub.files("tester/tiny", "before")

    said, names, model = pushed_weights(tmp_path / "old")
    assert all(name in said for name in shards)
    assert names == {"model.safetensors"}
    assert model.scalar_mixes[0].gamma.item() == 7.0


def test_private_and_revision(hub, push, folder):
    push(folder, "tiny", "--private", "--revision", "trial/2")
    repo = hub.repos["tester/tiny"]
    assert repo.is_private
    assert len(repo.branches["main"]) == 1
    assert "config.json" in hub.files("tester/tiny", "trial/2")
    push(folder, "tiny", "--revision", "trial/2")
    assert len(repo.branches["trial/2"]) == 2


def test_private_is_not_promised_for_a_public_repository(hub, push, folder):
    huggingface_hub.HfApi(endpoint=hub.url, token=TOKEN).create_repo("tester/tiny")
    assert "public" in push(folder, "tester/tiny", "--private", status=1).stderr
    assert unchanged(hub)


def test_the_token_is_found_where_the_library_has_it(hub, push, folder, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in push(folder, "tester/tiny", status=1).stderr
    (tmp_path / "token").write_text(TOKEN + "\n", encoding="utf-8")
    push(folder, "tester/tiny")
    assert not unchanged(hub)


@pytest.mark.parametrize(
    ("token", "name", "expected"),
    [
        ("hf_wrong", "tester/tiny", "does not accept the token (401: Invalid credentials"),
        (READ_ONLY_TOKEN, "tester/tiny", "may not write to tester/tiny (403: "),
        (TOKEN, "somebody/tiny", "may not write to somebody/tiny (403: "),
        ("hf_\x01odd", "tester/tiny", "characters that none has"),
        (TOKEN, "a/b/c", "'a/b/c' is not a name of a repository"),
        (TOKEN, "two words", "'two words' is not a name of a repository"),
    ],
)
def test_who_may_not_push(hub, push, folder, monkeypatch, token, name, expected):
    monkeypatch.setenv("HF_TOKEN", token)
    result = push(folder, name, status=1)
    assert expected in result.stderr
    assert token not in result.output
    assert hub.repos == {}


def test_no_network(hub, push, folder, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
    assert f"The hub at {url} cannot be reached" in push(folder, "tester/tiny", status=1).stderr
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    close_session()
    assert "HF_HUB_OFFLINE is set" in push(folder, "tester/tiny", status=1).stderr


# --- what is no model, or no card


def test_what_is_no_whole_model(hub, push, folder, tmp_path):
    def says(expected, path=folder):
        assert expected in push(path, "tester/tiny", status=1).stderr

    says("There is no model folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    says("it has no config.json", tmp_path / "empty")
    says("is not a model folder", folder / "config.json")
    shard = sorted(folder.glob("*.safetensors"))[0]
    content = shard.read_bytes()
    shard.write_bytes(content[:-8])
    says("is damaged: it ends before the numbers of")
    shard.unlink()
    says(shard.name)
    shard.write_bytes(content)
    (folder / "tokenizer.json").rename(tmp_path / "tokenizer.json")
    says("has no tokenizer.json")
    (tmp_path / "tokenizer.json").rename(folder / "tokenizer.json")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}), encoding="utf-8")
    says("'BertModel', which is not a model of hf_elmo")
    (folder / "config.json").write_text(
        json.dumps({**config, "architectures": ["ElmoForPreTraining"]}), encoding="utf-8"
    )
    says("is not a language model")
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}), encoding="utf-8")
    says("expected 'elmo'")
    assert hub.requests == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize("part", [".", "logs", "notes.txt"])
def test_what_may_not_be_read(hub, push, folder, part):
    _push_once(hub, push, folder)
    (folder / "logs").mkdir()
    (folder / "notes.txt").write_text("x", encoding="utf-8")
    (folder / part).chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            if not os.access(folder.parent, os.X_OK):
                pytest.skip("another user cannot reach the folder")
            _let_others_pass(folder)
            os.seteuid(65534)
        assert "Permission denied" in push(folder, "tester/tiny", status=1).stderr
    finally:
        os.seteuid(user)
        (folder / part).chmod(0o755)
    assert hub.requests == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
def test_a_folder_that_is_read_only(hub, push, folder):
    """Nothing is written beside the model, also for who could not."""
    _push_once(hub, push, folder)
    before = content_of(folder)
    user = os.geteuid()
    try:
        folder.chmod(0o555 if user == 0 else 0o500)
        if user == 0:
            if not os.access(folder.parent, os.X_OK):
                pytest.skip("another user cannot reach the folder")
            _let_others_pass(folder)
            # The hub is in this process, so it becomes that user, too.
            hub.folder.chmod(0o777)
            os.seteuid(65534)
        with pytest.raises(PermissionError):
            (folder / "new").touch()
        push(folder, "tester/tiny")
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
    assert content_of(folder) == before
    assert {"README.md", *before, *model_code()} <= hub.files("tester/tiny").keys()


def _push_once(hub, push, folder):
    """Imports all that a push imports: another user may not be able to read Python's own modules."""
    push(folder, "tester/before")
    hub.requests.clear()
    hub.repos.clear()
    for stored in hub.folder.iterdir():
        stored.unlink()


def _let_others_pass(folder):
    """pytest and its workers make folders, and safetensors files, that only their owner may read."""
    for path in folder.glob("*.*"):
        path.chmod(path.stat().st_mode | (0o044 if path.stat().st_mode & 0o400 else 0))
    for parent in folder.parents:
        if parent.name.startswith(("pytest-", "popen-", "test_")):
            parent.chmod(0o755)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ("", "has no library_name"),
        ("---\nlicense: mit\n---\n", "has no library_name"),
        ("---\nlibrary_name: [a\n---\n", "is not what the hub takes"),
        ("---\n- a\n- b\n---\n", "should be a dict"),
        ("---\nlibrary_name: transformers\nlanguage: no\n---\n", "language: False, expected text"),
        ("---\nlibrary_name: transformers\nlicense: [mit]\n---\n", "license: ['mit'], expected text"),
        ("---\nlibrary_name: transformers\nbase_model: /home/me/x\n---\n", "/home/me/x"),
        ("---\nlibrary_name: transformers\nmodel-index:\n- name: x\n  results:\n  - task: {}\n---\n", "model_index"),
        (
            "---\nlibrary_name: transformers\nlicense: my-own\n---\n",
            'does not take the metadata of README.md: "license"',
        ),
    ],
)
def test_cards_that_the_hub_would_not_take(hub, push, folder, metadata, expected):
    (folder / "README.md").write_text(metadata + "# Mine\n", encoding="utf-8")
    assert expected in push(folder, "tester/tiny", status=1).stderr
    assert hub.repos == {}


def test_what_a_card_lacks_is_said(hub, push, folder):
    (folder / "README.md").write_text("---\nlibrary_name: transformers\n---\n# Mine\n", encoding="utf-8")
    assert "README.md has no license" in push(folder, "tester/tiny").stderr


def test_a_file_with_the_token_is_not_sent(hub, push, folder):
    (folder / "notes.txt").write_text(f"login with {TOKEN}", encoding="utf-8")
    assert "notes.txt holds your token" in push(folder, "tester/tiny", status=1).stderr
    assert "notes.txt holds your token" in push(folder, "tester/tiny", "--dry-run").stderr
    for secret in ("hf_" + "aB3" * 11 + "c", "-----BEGIN OPENSSH PRIVATE KEY-----"):
        (folder / "notes.txt").write_text(f"my key: {secret}\n", encoding="utf-8")
        for arguments, status in (([], 1), (["--dry-run"], 0)):
            said = push(folder, "tester/tiny", *arguments, status=status).stderr
            assert "notes.txt holds a token for the hub, or a private key" in said
            assert secret not in said
    assert hub.requests == []


# --- a hub that fails

CREATE, BATCH, COMMIT = "/repos/create", "/objects/batch", "/commit/"


@pytest.mark.parametrize(
    ("method", "pattern", "status", "expected"),
    [
        ("POST", CREATE, 401, "does not accept the token"),
        ("POST", CREATE, 500, "The hub has failed (500"),
        ("POST", "/preupload/", 404, "does not find"),
        ("POST", BATCH, 403, "may not write to"),
        ("PUT", "/lfs/", 500, "The hub has failed (500"),
        ("POST", COMMIT, 401, "does not accept the token"),
        ("POST", COMMIT, 403, "may not write to"),
        ("POST", COMMIT, 409, "is being changed by somebody else"),
        ("POST", COMMIT, 412, "is being changed by somebody else"),
        ("POST", COMMIT, 413, "refuses the upload"),
        ("POST", COMMIT, 500, "The hub has failed (500"),
    ],
)
def test_an_error_changes_nothing_and_the_next_try_succeeds(hub, push, folder, method, pattern, status, expected):
    hub.fail(method, pattern, status, "not now", times=100)
    assert expected in push(folder, "tester/tiny", status=1).stderr
    assert unchanged(hub)
    hub.faults.clear()
    push(folder, "tester/tiny")
    assert len(hub.repos["tester/tiny"].branches["main"]) == 2
    assert hub.counts()["PUT lfs"] == len(list(folder.glob("*.safetensors")))


def test_the_token_is_shown_by_no_error_and_no_traceback(hub, push, folder):
    """Even if the hub repeats it, which it should not."""
    hub.fail("POST", COMMIT, 403, f"no, {TOKEN}, not now", times=2)
    assert "no, ***, not now" in push(folder, "tester/tiny", status=1).stderr
    result = CliRunner().invoke(app, ["--traceback", "push", str(folder), "tester/tiny"])
    assert "Traceback" in result.output
    assert "no, ***, not now" in result.output
    assert TOKEN not in result.output


def test_a_conflict_over_a_new_name(hub, push, folder):
    """A repository that is there already is not made, which is no error."""
    hub.fail("POST", CREATE, 409, "taken")
    assert "cannot make tester/tiny now (409)" in push(folder, "tester/tiny", status=1).stderr
    push(folder, "tester/tiny")
    assert not unchanged(hub)


def test_a_connection_that_breaks_in_the_middle(hub, push, folder):
    """What had arrived is not sent again."""
    shards = sorted(folder.glob("*.safetensors"))
    oids = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in shards}
    lost = oids[shards[0]]
    hub.drop("PUT", lost, after=1000, times=100)
    assert "cannot be reached" in push(folder, "tester/tiny", status=1).stderr
    assert unchanged(hub)
    broken = [each for each in hub.requests if each.path == f"/lfs/{lost}"]
    assert broken
    assert all((each.status, each.received) == (0, 1000) for each in broken)
    hub.faults.clear()
    arrived = hub.counts()["PUT lfs"]
    push(folder, "tester/tiny")
    assert hub.counts()["PUT lfs"] == len(shards)
    assert arrived <= len(shards) - 1
    sent = [each.path for each in hub.requests if each.method == "PUT" and each.status == 200]
    assert sorted(sent) == sorted(f"/lfs/{oid}" for oid in oids.values())
    for path in shards:
        assert hub.read("tester/tiny", path.name) == path.read_bytes()


@pytest.mark.parametrize("method_and_pattern", [("POST", CREATE), ("POST", COMMIT)])
def test_a_connection_that_breaks_before_an_answer(hub, push, folder, method_and_pattern):
    hub.drop(*method_and_pattern)
    assert "cannot be reached" in push(folder, "tester/tiny", status=1).stderr
    assert unchanged(hub)
    push(folder, "tester/tiny")
    assert not unchanged(hub)


def test_the_library_tries_again_by_itself(hub, push, folder):
    hub.drop("PUT", "/lfs/", after=1000)
    hub.fail("POST", BATCH, 500)
    push(folder, "tester/tiny")
    assert not unchanged(hub)


def test_a_language_model_is_pushed_with_its_softmax(hub, push, tmp_path):
    from small_models import small_config

    model = ElmoForPreTraining(small_config(vocab_size=9))
    model.save_pretrained(tmp_path / "lm")
    ElmoTokenizer.create(["a", "b", "c", "d", "e"], max_characters_per_token=8).save_pretrained(tmp_path / "lm")
    push(tmp_path / "lm", "tester/lm")
    assert hub.read("tester/lm", "model.safetensors") == (tmp_path / "lm" / "model.safetensors").read_bytes()
