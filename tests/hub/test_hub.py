"""Models on a hub: pushed with every tool there is, and read by their names, each step in a process of its own."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
import warm
from amounts import first_of
from hub_server import HubServer
from hub_storage import TOKEN
from isolated import isolated_environment, run_warm_without_hf_elmo
from places import HELPERS
from saved_code import assert_same, code_of, model_code

import hf_elmo

# A process that reaches for another machine than this one fails.
_LOOPBACK_ONLY = """
import socket
_connect = socket.socket.connect

def connect(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise AssertionError(f"a connection to {address}")
    return _connect(self, address)

socket.socket.connect = connect
"""


def hub_environment(hub, folder, with_package, **variables):
    """Environment variables of a process that knows this hub, its token and no other machine."""
    common = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": TOKEN, "NO_PROXY": "*"}
    environment = isolated_environment(folder, **{**common, **variables})
    hook = folder / "hidden" / "sitecustomize.py"
    hook.write_text(_LOOPBACK_ONLY + ("" if with_package else hook.read_text(encoding="utf-8")), encoding="utf-8")
    if with_package:
        paths = [str(folder / "hidden"), str(Path(hf_elmo.__file__).parents[1])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def run_on_top(arguments, **options):
    """A process in which what transformers imports is imported, and transformers is not."""
    return warm.run(arguments, warm.BELOW, **options)


def run(arguments, environment, folder, status=0, start=run_on_top):
    options = {"cwd": folder, "env": environment, "stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    done = start(arguments, timeout=300, **options)
    assert done.returncode == status, f"exit status {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    assert TOKEN not in done.stdout + done.stderr
    return done


NAMES = ["tester/elmo-tiny", "tester/tagger.v1", "tester/reader", "tester/classifier", "tester/words"]
HEADS = {"tagger": NAMES[1], "reader": NAMES[2], "classifier": NAMES[3]}


@pytest.fixture(scope="module")
def published(tiny_model_folder, tmp_path_factory):
    """A hub to which everything was pushed, and a folder with copies."""
    folder = tmp_path_factory.mktemp("published")
    with HubServer(folder / "hub") as hub:
        environment = hub_environment(hub, folder, with_package=True)
        run([HELPERS / "hub_author.py", tiny_model_folder, folder / "copies"], environment, folder)
        push = ["-m", "hf_elmo", "push", tiny_model_folder, NAMES[0], "--private"]
        done = run(push, environment, folder)
        assert done.stdout == f"{hub.url}/{NAMES[0]}\n"
        yield hub, folder / "copies"
        assert hub.unknown == []


@pytest.fixture(scope="module", params=first_of([["tagger"], list(HEADS)]), ids=" ".join)
def heads(request):
    """What users read beside the base model and the tokenizer."""
    return request.param


def arguments_for(heads):
    return [NAMES[0], NAMES[4], *(f"{head}={HEADS[head]}" for head in heads)]


@pytest.fixture(scope="module")
def left_by_user(published, heads, tmp_path_factory):
    """What a user without hf_elmo left."""
    hub, _ = published
    folder = tmp_path_factory.mktemp("user")
    arguments = [HELPERS / "hub_user.py", "remote", folder, *arguments_for(heads)]
    environment = hub_environment(hub, folder, with_package=False)
    run(arguments, environment, folder, start=run_warm_without_hf_elmo)
    return folder


def check_weights(folder, heads, copies, tiny_model_folder):
    """All weights are those that were pushed, bit for bit."""
    sources = {"base": tiny_model_folder, **{head: copies / HEADS[head] for head in heads}}
    for name, source in sources.items():
        weights = torch.load(folder / f"{name}.pt", weights_only=True)
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        expected = getattr(hf_elmo, config["architectures"][0]).from_pretrained(source).state_dict()
        assert weights.keys() == expected.keys()
        for key, tensor in weights.items():
            assert torch.equal(tensor, expected[key]), (name, key)


def test_every_repository_is_complete(published):
    hub, _ = published
    for name in NAMES[:4]:
        files = hub.files(name)
        assert {*model_code(), "config.json", "model.safetensors", "tokenizer.json", "README.md"} <= files.keys()
        assert {path: hub.read(name, path) for path in model_code()} == model_code()
    assert {"tokenizer.json", "tokenizer_config.json", "tokenization_elmo.py"} <= hub.files(NAMES[4]).keys()
    assert [hub.repos[name].is_private for name in NAMES] == [True, True, True, False, False]


def test_large_files_go_the_way_that_the_client_prefers(published):
    pytest.importorskip("hf_xet")
    hub, _ = published
    weights = [hub.files(name)["model.safetensors"] for name in NAMES[:4]]
    assert all(blob.xet in hub.xet.files for blob in weights)


def test_the_token_goes_to_the_hub_alone(published, left_by_user):
    """Places for contents have signatures and tokens of their own."""
    pytest.importorskip("hf_xet")
    hub, _ = published
    assert any("/cas/xorbs/" in each.path for each in hub.requests)
    assert not [
        each
        for each in hub.requests
        if each.token == TOKEN and "/api/" not in each.path and "/resolve/" not in each.path
    ]


def answers_in(folder):
    return json.loads((folder / "answers.json").read_text(encoding="utf-8"))


def check_that_it_worked_without_the_package(folder, heads, copies, tiny_model_folder):
    check_weights(folder, heads, copies, tiny_model_folder)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    assert len(modules) == 2 * len(["base", *heads]) + 1
    assert all(module.startswith("transformers_modules.") for module in modules)
    for name in ("base", *heads):
        assert code_of(folder / name) == model_code()


def test_without_the_package(published, heads, left_by_user, tiny_model_folder):
    check_that_it_worked_without_the_package(left_by_user, heads, published[1], tiny_model_folder)


@pytest.mark.slow
def test_what_was_saved_without_the_package_is_whole(published, heads, left_by_user, tiny_model_folder, tmp_path):
    """A friend of this user has only what the user saved."""
    saved = [left_by_user / "base", left_by_user / "words", *(f"{head}={left_by_user / head}" for head in heads)]
    arguments = [HELPERS / "hub_user.py", "remote", tmp_path, *saved]
    run(arguments, isolated_environment(tmp_path), tmp_path, start=run_warm_without_hf_elmo)
    check_that_it_worked_without_the_package(tmp_path, heads, published[1], tiny_model_folder)
    assert_same(answers_in(left_by_user), answers_in(tmp_path))


def test_with_the_package_no_code_of_the_hub_is_used(published, heads, left_by_user, tiny_model_folder, tmp_path):
    hub, copies = published
    before = len(hub.requests)
    arguments = [HELPERS / "hub_user.py", "installed", tmp_path, *arguments_for(heads)]
    run(arguments, hub_environment(hub, tmp_path, True), tmp_path)
    check_weights(tmp_path, heads, copies, tiny_model_folder)
    modules = json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))
    assert all(module.startswith("hf_elmo.") for module in modules)
    assert not [each.path for each in hub.requests[before:] if each.path.endswith(".py")]
    assert_same(answers_in(tmp_path), answers_in(left_by_user))


@pytest.mark.slow
def test_an_upload_with_xet_that_breaks_off(tiny_model_folder, tmp_path):
    pytest.importorskip("hf_xet")
    quick = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms"}
    with HubServer(tmp_path / "hub") as hub:
        environment = hub_environment(hub, tmp_path, with_package=True, **quick)
        command = ["-m", "hf_elmo", "push", tiny_model_folder, "tester/tiny"]
        hub.drop("POST", "/xorbs/", after=20_000, times=100)
        failed = run(command, environment, tmp_path, status=1)
        assert failed.stdout == ""
        assert failed.stderr.splitlines()[-1].startswith("hf-elmo: The upload to tester/tiny has failed")
        assert "Traceback" not in failed.stderr
        assert list(hub.files("tester/tiny")) == [".gitattributes"]
        hub.faults.clear()
        run(command, environment, tmp_path)
        assert len(hub.repos["tester/tiny"].branches["main"]) == 2
        assert hub.files("tester/tiny")["model.safetensors"].xet in hub.xet.files
