"""transformers' own test suites for tokenizers and models, run on ours.

They are not part of an installed transformers, but of its source distribution. To run them, unpack the one of the
installed version and name its folder (the one with `src` and `tests`):

    pip download --no-deps --no-binary :all: transformers==<version>
    tar xzf transformers-<version>.tar.gz
    pip install parameterized
    HF_ELMO_TRANSFORMERS_TESTS=transformers-<version> python -m pytest tests/model/test_common_suites.py -m slow
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import transformers
from places import CHECKOUT

_VARIABLE = "HF_ELMO_TRANSFORMERS_TESTS"

# Reasons that the suites themselves give for tests that this machine cannot run.
MACHINE = re.compile(
    r"Skipped: test requires (accelerator|multiple accelerators|MPS|deepspeed|the kernels library|Flash Attention)"
)


@dataclass(frozen=True)
class Suite:
    """A module of tests that uses transformers' mixins, and what of it may fail or be skipped.

    Attributes:
        module: The module's text. It lies in a package `tests.elmo`; transformers' `tests` are the package above.
        least_passes: As many tests pass, with transformers 5.23; more where there is an accelerator.
        failures: Tests that fail, each because it cannot hold for ELMo: name to reason and a pattern of the report.
            One that passes, or fails elsewhere, is to be looked at.
        skips: Tests that skip themselves: name, which may have wildcards, to reason. Those that want hardware or
            optional packages (`MACHINE`) need not be named.
        stubs: Files of transformers' tests that the source distribution lacks, path to text.
    """

    module: str
    least_passes: int
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    skips: dict[str, str] = field(default_factory=dict)
    stubs: dict[str, str] = field(default_factory=dict)


TOKENIZER = Suite(
    module='''
import tempfile
import unittest

import hf_elmo
from ..test_tokenization_common import TokenizerTesterMixin
from ..test_tokenizers_backend_mixin import TokenizersBackendTesterMixin

# Every word of the texts that the suite expects to get back from their ids.
WORDS = """
    This is the first sentence a test some text hello world Hello I am you low lower newest new unwanted running
""".split()
FOLDER = tempfile.mkdtemp()
hf_elmo.ElmoTokenizer.create(dict.fromkeys(WORDS)).save_pretrained(FOLDER)
hf_elmo.ElmoConfig.from_preset("small", vocab_size=4 + len(set(WORDS))).save_pretrained(FOLDER)


class ElmoTokenizationTest(TokenizerTesterMixin, TokenizersBackendTesterMixin, unittest.TestCase):
    tokenizer_class = rust_tokenizer_class = hf_elmo.ElmoTokenizer
    from_pretrained_id = FOLDER
    test_tokenizer_from_extractor = False
''',
    least_passes=60,
    failures={
        "test_batch_encode_dynamic_overflowing": (
            "asserts that every output is 2-D; character_ids are 3-D",
            r"\(len\(tokens\[key\]\.shape\), 2\)\nE +AssertionError: 3 != 2",
        ),
    },
    skips={
        "test_chat_template_save_loading": "looks for chat_template in the signature of our __init__; there is none",
        "test_integration": "compares with the tokens of a published tokenizer",
        "test_integration_from_extractor": "likewise",
    },
    # The common text that some tests read; any text will do.
    stubs={"fixtures/sample_text.txt": "This is some text.\n\nIt is not the text of transformers.\n"},
)

MODEL = Suite(
    module="""
import unittest

import hf_elmo
import torch
from transformers.models.auto import modeling_auto
from transformers.testing_utils import torch_device

from ..test_configuration_common import ConfigTester
from ..test_modeling_common import ModelTesterMixin, ids_tensor

# The suite looks up here which labels a class takes.
for task, head in {
    "MULTIPLE_CHOICE": hf_elmo.ElmoForMultipleChoice,
    "QUESTION_ANSWERING": hf_elmo.ElmoForQuestionAnswering,
    "SEQUENCE_CLASSIFICATION": hf_elmo.ElmoForSequenceClassification,
    "TOKEN_CLASSIFICATION": hf_elmo.ElmoForTokenClassification,
}.items():
    getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES")["elmo"] = head.__name__
modeling_auto.MODEL_FOR_PRETRAINING_MAPPING_NAMES["elmo"] = "ElmoForPreTraining"
modeling_auto.MODEL_MAPPING_NAMES["elmo"] = "ElmoModel"
# By its class's name it finds the layer whose size follows from the number of labels.
hf_elmo.model.heads.sequence_classification_elmo.TextPairScorer.__name__ = "TextPairClassificationHead"

SIZES = {
    "vocab_size": 20,
    "char_embed_dim": 6,
    "filters": [[1, 8], [2, 16]],
    "num_highway_layers": 1,
    "max_characters_per_token": 10,
    "cell_size": 24,
    "projection_dim": 16,
    "num_layers": 2,
    "task_encoder_layers": 1,
    "task_encoder_size": 12,
    "classifier_size": 14,
    "freeze_bilm": False,
}


class ElmoModelTester:
    batch_size, seq_length, num_choices = 4, 12, 3
    hidden_size, num_hidden_layers = 2 * SIZES["projection_dim"], SIZES["num_layers"]
    is_training = True

    def __init__(self, parent):
        self.parent = parent

    def get_config(self):
        return hf_elmo.ElmoConfig(**SIZES)

    def prepare_config_and_inputs_for_common(self):
        shape = (self.batch_size, self.seq_length)
        characters = ids_tensor([*shape, 10], 256) + 1
        segments = torch.zeros(shape, dtype=torch.long, device=torch_device)
        segments[:, self.seq_length // 2 :] = 1
        return self.get_config(), {
            "input_ids": ids_tensor(shape, SIZES["vocab_size"] - 4) + 4,
            "character_ids": characters,
            "attention_mask": torch.ones(shape, dtype=torch.long, device=torch_device),
            "token_type_ids": segments,
        }


class ElmoModelTest(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (
        hf_elmo.ElmoModel,
        hf_elmo.ElmoForMultipleChoice,
        hf_elmo.ElmoForPreTraining,
        hf_elmo.ElmoForQuestionAnswering,
        hf_elmo.ElmoForSequenceClassification,
        hf_elmo.ElmoForTokenClassification,
    )
    has_attentions = False
    test_resize_embeddings = False
    test_can_init_all_missing_weights_before_2023 = True

    def setUp(self):
        self.model_tester = ElmoModelTester(self)
        self.config_tester = ConfigTester(
            self, config_class=hf_elmo.ElmoConfig, common_properties=["hidden_size", "num_hidden_layers"], **SIZES
        )

    def test_config(self):
        self.config_tester.run_common_tests()

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        if model_class is hf_elmo.ElmoForMultipleChoice:
            # Rows of characters end to end, as the stock collator makes them.
            inputs_dict = {**inputs_dict, "character_ids": inputs_dict["character_ids"].flatten(1)}
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if return_labels and model_class is hf_elmo.ElmoForPreTraining:
            inputs["labels"] = inputs["input_ids"]
        return inputs
""",
    least_passes=65,
    failures={
        "test_load_with_mismatched_shapes": (
            "wants an error for another vocab_size, on which no weight of ElmoModel depends",
            r"num_labels=42\)\n> +with self\.assertRaises\(RuntimeError\):\nE +AssertionError: RuntimeError not raised",
        ),
        "test_model_weights_reload_no_missing_tied_weights": (
            "writes a file of whole numbers, which is refused before names are compared",
            r"E +ValueError: .*the weights tensor are of the type I64, expected F64, F32, F16, BF16",
        ),
    },
    skips={
        **dict.fromkeys(
            [
                "test_attention_outputs",
                "test_attn_implementation_composite_models",
                "test_can_set_attention_dynamically",
                "test_eager_matches_sdpa_inference_*",
                "test_sdpa_can_dispatch_*",
                "test_sliding_window_mask",
            ],
            "ELMo has no attention",
        ),
        **dict.fromkeys(
            ["test_model_rope_*", "test_resize_position_vector_embeddings", "test_vision_axial_rope"],
            "ELMo has no positions",
        ),
        **dict.fromkeys(
            ["test_eager_matches_batched_and_grouped_inference_*", "test_moe_*", "test_output_router_logits_*"],
            "ELMo has no experts",
        ),
        **dict.fromkeys(
            ["test_causal_lm_loss_honors_shift_labels", "test_encoder_decoder_loss_no_double_shift"],
            "ELMo generates no text",
        ),
        **dict.fromkeys(
            ["test_can_set_attention_dynamically_composite_model", "test_internal_model_config_and_subconfig_are_same"],
            "ELMo is one model, not several",
        ),
        **dict.fromkeys(
            ["test_can_load_from_already_mapped_keys", "test_reverse_loading_mapping"],
            "weights of other formats are converted by hf_elmo.conversion, not on loading",
        ),
        **dict.fromkeys(
            ["test_resize_embeddings_*", "test_resize_tokens_embeddings*"],
            "input embeddings are of characters, output embeddings of words: there is nothing to resize together",
        ),
        **dict.fromkeys(
            ["test_can_capture_specific_layers_hidden_states", "test_capture_outputs_decorator"],
            "hidden states are collected by hand: they are packed while the layers run",
        ),
        **dict.fromkeys(["test_inputs_embeds*"], "what the biLM reads are no embeddings of one token each"),
        **dict.fromkeys(["test_keep_in_fp32_modules*"], "no module has to stay in float32"),
        **dict.fromkeys(
            ["test_tied_head_has_a_tp_plan_entry", "test_tp_plan_matches_params"], "no plan for tensor parallelism"
        ),
    },
    stubs={
        # What ELMo does not take part in: export, and generation of text.
        "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
        "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
        # Fields that every configuration has, at other values than the default.
        "utils/test_configuration_utils.py": """config_common_kwargs = {
    "return_dict": False,
    "output_hidden_states": True,
    "chunk_size_feed_forward": 5,
    "architectures": ["ElmoModel"],
    "id2label": {0: "label"},
    "label2id": {"label": "0"},
    "problem_type": "regression",
}
""",
    },
)

SUITES = {"tokenizer": TOKENIZER, "model": MODEL}

_RECORDER = """
import json, os

OUTCOMES = {}


def pytest_runtest_logreport(report):
    name = report.nodeid.rpartition("::")[2]
    if report.failed:
        OUTCOMES[name] = ["failed", str(report.longrepr)[-3000:]]
    # A test with one part that is skipped, one class of several, counts as skipped.
    elif report.skipped and name not in OUTCOMES:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        OUTCOMES[name] = ["skipped", reason]
    elif report.when == "call":
        OUTCOMES.setdefault(name, ["passed", ""])


def pytest_sessionfinish():
    with open(os.environ["OUTCOMES"], "w") as file:
        json.dump(OUTCOMES, file)
"""


@pytest.fixture(scope="session")
def transformers_tests() -> Path:
    """The folder of tests of the installed transformers."""
    name = os.environ.get(_VARIABLE)
    if not name:
        pytest.skip(f"{_VARIABLE} is not set; how to get transformers' test suites stands at the top of this file")
    assert importlib.util.find_spec("parameterized"), "transformers' test suites need the package parameterized"
    folder = Path(name).resolve()
    information = (folder / "PKG-INFO").read_text(encoding="utf-8")
    version = next(line.partition(": ")[2] for line in information.splitlines() if line.startswith("Version: "))
    assert version == transformers.__version__, f"{folder} has the tests of another version: {version}"
    return folder / "tests"


def run_suite(suite: Suite, transformers_tests: Path, folder: Path) -> dict[str, list[str]]:
    """Runs a suite in a process of its own: "passed", "failed" or "skipped", and why, for the name of each test."""
    # The suites look for a directory of exactly this name.
    tests = folder / "tests"
    shutil.copytree(transformers_tests, tests)
    for path, text in suite.stubs.items():
        (tests / path).parent.mkdir(parents=True, exist_ok=True)
        (tests / path).write_text(text, encoding="utf-8")
    for package in {tests, tests / "elmo", *((tests / path).parent for path in suite.stubs)}:
        package.mkdir(exist_ok=True)
        (package / "__init__.py").touch()
    (tests / "elmo" / "test_elmo.py").write_text(suite.module, encoding="utf-8")
    (folder / "conftest.py").write_text(_RECORDER, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    outcomes = folder / "outcomes.json"
    packages = [str(CHECKOUT), os.environ.get("PYTHONPATH")]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/elmo/test_elmo.py"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, packages)),
            "OUTCOMES": str(outcomes),
            "HF_HUB_OFFLINE": "1",
            "RUN_SLOW": "1",
        },
        capture_output=True,
        text=True,
        timeout=3000,
    )
    assert outcomes.exists(), result.stdout[-5000:] + result.stderr[-5000:]
    found = json.loads(outcomes.read_text(encoding="utf-8"))
    assert found, result.stdout[-5000:] + result.stderr[-5000:]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_suite(name, transformers_tests, tmp_path):
    suite = SUITES[name]
    outcomes = run_suite(suite, transformers_tests, tmp_path)
    by_outcome = {
        kind: {test: why for test, (outcome, why) in outcomes.items() if outcome == kind}
        for kind in ("passed", "failed", "skipped")
    }
    new_failures = {
        test: report
        for test, report in by_outcome["failed"].items()
        if test not in suite.failures or not re.search(suite.failures[test][1], report)
    }
    assert not new_failures, "\n\n".join(f"{test}: {report}" for test, report in new_failures.items())
    known = {
        test for test, why in by_outcome["skipped"].items() if any(fnmatchcase(test, name) for name in suite.skips)
    }
    new_skips = {
        test: why for test, why in by_outcome["skipped"].items() if test not in known and not MACHINE.match(why)
    }
    assert not new_skips, "skipped for no known reason:\n" + "\n".join(f"{t}: {why}" for t, why in new_skips.items())
    assert not suite.failures.keys() - by_outcome["failed"].keys(), "these pass now, or are gone"
    stale = [name for name in suite.skips if not any(fnmatchcase(test, name) for test in by_outcome["skipped"])]
    assert not stale, f"these are not skipped any more, or are gone: {stale}"
    assert len(by_outcome["passed"]) >= suite.least_passes, f"only {len(by_outcome['passed'])} tests passed"
