"""What all tests share: how they run, where the data is, and small models."""

import functools
import gc
import os
import random
import zlib
from pathlib import Path

# Tests run side by side (pytest-xdist), so each process, and whatever it starts, computes with one thread. torch reads
# this when it is loaded. It also makes sums come out alike on machines with any number of cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
import typer.testing
import warm
from hypothesis import settings
from transformers.utils import logging

import hf_elmo

# The same examples on every machine and in every run, unless somebody hunts for faults: HYPOTHESIS_PROFILE=explore
# draws new ones, and keeps those that failed in .hypothesis/ for the next run. "thorough" tries four times as many.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=25)
settings.register_profile("thorough", derandomize=True, database=None, deadline=None)
settings.register_profile("explore", derandomize=False, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# Hundreds of tests run commands in this process, each of which would make all commands from their functions anew.
typer.testing._get_command = functools.cache(typer.testing._get_command)


def pytest_configure(config):
    """The first process of pytest-xdist lets all of them start warm processes."""
    if not hasattr(config, "workerinput"):
        context = warm.begin()
        context.__enter__()
        config.add_cleanup(lambda: context.__exit__(None, None, None))


def pytest_collection_finish():
    """What was imported is not looked at by each collection of garbage, of which every `Trainer` asks for several."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data and original fixtures beside the project, or named by HF_ELMO_SHARED_DATA."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("HF_ELMO_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no shared data: neither HF_ELMO_SHARED_DATA nor {beside} is a folder")
    return folder


def _seed(name: str) -> None:
    number = zlib.crc32(name.encode())
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef):
    """Every fixture and every test has random numbers of its own, whatever ran before it."""
    _seed(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    _seed(item.name)


@pytest.fixture(autouse=True)
def libraries_speak():
    """Undoes what the command line silences in its process, so that other tests hear the library's warnings."""
    verbosity = logging.get_verbosity()
    yield
    logging.set_verbosity(verbosity)
    logging.enable_progress_bar()


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory) -> Path:
    """A saved `ElmoModel` (two layers of 2 x 16) and its tokenizer, with random weights. To be read, not changed.

    Activations are of order 1, so that layers, words and sentences differ visibly, and the mix is no plain average.
    """
    folder = tmp_path_factory.mktemp("models") / "tiny"
    filters = [[1, 8], [2, 16], [3, 24]]
    config = hf_elmo.ElmoConfig(
        char_embed_dim=8, filters=filters, num_highway_layers=1, cell_size=40, projection_dim=16
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(20)
        model = hf_elmo.ElmoModel(config)
        # Freshly initialised activations are of order 0.01, where a wrong model is near enough to a right one.
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif ".convolutions." in name:
                parameter.mul_(5)
            elif name.startswith("bilstm."):
                parameter.mul_(2.5)
        model.scalar_mixes[0].weights.copy_(torch.tensor([0.2, -0.4, 0.6]))
        model.scalar_mixes[0].gamma.fill_(1.3)
    model.save_pretrained(folder)
    hf_elmo.ElmoTokenizer.create().save_pretrained(folder)
    return folder
