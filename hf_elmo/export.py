"""Models as graphs that run without this package: programs of `torch.export`, and ONNX.

A graph takes what `ElmoTokenizer` makes, for any number of sentences and words, and gives what the model gives in
evaluation mode. It checks nothing that depends on values.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .model.heads.question_answering_elmo import ElmoForQuestionAnswering
from .model.heads.sequence_classification_elmo import ElmoForMultipleChoice
from .model.heads.unicode_characters import UnicodeCharacters
from .model.lstm.lstm_layer import ElmoState
from .model.modeling_elmo import ElmoForPreTraining, ElmoModel, ElmoPreTrainedModel
from .model.tokenization_elmo import ElmoTokenizer
from .vectors.batching import evaluating
from .whole_files import new_folder

OPSET = 20
ONNX_FILE, PROGRAM_FILE = "model.onnx", "model.pt2"


class ElmoGraph(nn.Module):
    """A model with tensors alone for inputs, and a dictionary of tensors for outputs.

    Args:
        model: An ELMo model, with or without a head.
        with_state: Take the LSTM state as `hidden` and `cell`, and return it as `new_hidden` and `new_cell`, instead of
            taking `token_type_ids`.

    Raises:
        ValueError: for a model that cannot be a graph, or has no state to return.
    """

    def __init__(self, model: ElmoPreTrainedModel, with_state: bool = False):
        super().__init__()
        if isinstance(getattr(model, "char_cnn", None), UnicodeCharacters):
            raise ValueError(
                "This model has a network over Unicode characters beside ELMo (char_cnn_characters), whose work "
                "depends on the lengths of words: it cannot be exported. Export its base model."
            )
        if with_state and not isinstance(model, (ElmoModel, ElmoForPreTraining)):
            raise ValueError(
                f"{type(model).__name__} reads whole texts and keeps no LSTM state: export it without, or its base "
                "model with it."
            )
        self.model = model
        self.with_state = with_state

    @property
    def input_names(self) -> list[str]:
        """The inputs that the graph has; all are to be given."""
        reads_ids = getattr(self.model, "word_vectors", None) is not None
        further = ["hidden", "cell"] if self.with_state else ["token_type_ids"]
        words = ["character_ids"] if self.model.config.character_inputs else []
        return [*(["input_ids"] if reads_ids or not words else []), *words, "attention_mask", *further]

    def forward(
        self,
        input_ids: Tensor | None = None,
        character_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        hidden: Tensor | None = None,
        cell: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Computes what the model does.

        Args:
            input_ids: ``(batch, words)``, int64; read by token classifiers with word vectors, and by models without
                characters.
            character_ids: ``(batch, words, chars)``, int64; read by all other models.
            attention_mask: ``(batch, words)``, int64, nonzero for words.
            token_type_ids: ``(batch, words)``, int64.
            hidden: ``(2, layers, batch, projection_dim)``, zeros to begin with.
            cell: ``(2, layers, batch, cell_size)``, zeros to begin with.

        Returns:
            Of a base model `last_hidden_state` ``(batch, words, dim)``, `further_representations` if it has several
            mixes, and `hidden_states`: all layers, ``(batch, num_layers + 1, words, dim)``; of a head its logits. With
            state also `new_hidden` and `new_cell`.
        """
        inputs: dict[str, Any] = {"attention_mask": attention_mask}
        if character_ids is not None:
            inputs["character_ids"] = character_ids
        if input_ids is not None:
            inputs["input_ids"] = input_ids
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        is_base = isinstance(self.model, ElmoModel)
        if is_base:
            inputs["output_hidden_states"] = True
        if self.with_state:
            assert hidden is not None, "a graph with state has it as an input"
            assert cell is not None, "a graph with state has it as an input"
            inputs.update(state=ElmoState(hidden, cell), return_state=True)
        results = self.model(**inputs, return_dict=True)
        outputs = {name: value for name, value in results.items() if isinstance(value, Tensor)}
        outputs.pop("tags", None)
        if is_base:
            outputs["hidden_states"] = torch.stack(results.hidden_states, dim=1)
        if self.with_state:
            # ONNX wants inputs and outputs to have different names.
            outputs["new_hidden"], outputs["new_cell"] = results.state
        return outputs

    def example_inputs(self) -> dict[str, Tensor]:
        """Inputs to trace the graph with: two rows of eight words."""
        config, device = self.model.config, self.model.device
        shape = (2, 2, 8) if isinstance(self.model, ElmoForMultipleChoice) else (2, 8)
        ids = torch.ones(shape, dtype=torch.long, device=device)
        second = torch.arange(8, device=device) >= 4
        sizes = (2, config.num_layers, 2)
        every = {
            "input_ids": ids,
            "character_ids": torch.ones(*shape, config.row_length, dtype=torch.long, device=device),
            "attention_mask": ids,
            "token_type_ids": (ids * second),
            "hidden": torch.zeros(*sizes, config.projection_dim, dtype=self.model.dtype, device=device),
            "cell": torch.zeros(*sizes, config.cell_size, dtype=self.model.dtype, device=device),
        }
        return {name: every[name].clone() for name in self.input_names}

    def free_dimensions(self) -> dict[str, dict[int, str]]:
        """Per input which of its dimensions may have any size, and their names."""
        is_choice = isinstance(self.model, ElmoForMultipleChoice)
        rows = {0: "batch", 1: "choices", 2: "words"} if is_choice else {0: "batch", 1: "words"}
        return {name: {2: "batch"} if name in ("hidden", "cell") else rows for name in self.input_names}


def export_program(model: ElmoPreTrainedModel, with_state: bool = False) -> torch.export.ExportedProgram:
    """The model as a program of `torch.export`: `torch.export.save` writes it, `torch.export.load` needs torch alone.

    `program.module()(character_ids=..., attention_mask=..., token_type_ids=...)` computes what `ElmoGraph` says, for
    one or more sentences of one or more words, in the dtype and on the device of the model.

    Args:
        model: An ELMo model, with or without a head.
        with_state: As in `ElmoGraph`.

    Raises:
        ValueError: for a model that cannot be exported.
    """
    graph = ElmoGraph(model, with_state)
    # The shortest row of a question and a context has a word of each, and their boundaries.
    shortest = 6 if isinstance(model, ElmoForQuestionAnswering) else 1
    sizes = {name: torch.export.Dim(name, min=1) for name in ("batch", "choices")}
    sizes["words"] = torch.export.Dim("words", min=shortest)
    free = {name: {dim: sizes[size] for dim, size in dims.items()} for name, dims in graph.free_dimensions().items()}
    with evaluating(graph), torch.no_grad():
        return torch.export.export(graph, (), graph.example_inputs(), dynamic_shapes=free)


def export_onnx(model: ElmoPreTrainedModel, file: str | Path, with_state: bool = False) -> None:
    """Writes the model as an ONNX graph (opset 20, float32); inputs and outputs as `ElmoGraph` says.

    Weights beyond 2 GB go into a second file beside it.

    Args:
        model: An ELMo model in float32, with or without a head.
        file: The file to write.
        with_state: As in `ElmoGraph`.

    Raises:
        ValueError: for a model that cannot be exported, or without the packages that the extra `onnx` names.
    """
    check_onnx()
    if model.dtype != torch.float32:
        raise ValueError(
            f"The model is in {_dtype_name(model.dtype)}, but ONNX Runtime computes it in float32 only: "
            "convert it with model.float() first."
        )
    graph = ElmoGraph(model, with_state)
    with evaluating(graph), torch.no_grad(), _quiet_exporter():
        inputs = graph.example_inputs()
        program = torch.onnx.export(
            graph,
            (),
            kwargs=inputs,
            input_names=graph.input_names,
            output_names=list(graph(**inputs)),
            dynamic_shapes=graph.free_dimensions(),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
        assert program is not None, "dynamo=True gives a program"
        program.save(file)


def export_folder(
    model: ElmoPreTrainedModel,
    tokenizer: ElmoTokenizer,
    folder: str | Path,
    onnx: bool = True,
    program: bool = False,
    with_state: bool = False,
) -> list[str]:
    """Writes a folder with the model's graph (`model.onnx`, `model.pt2`), its configuration and its tokenizer.

    A README.md in it says what goes in and out, and how to run it.

    Args:
        model: An ELMo model, with or without a head.
        tokenizer: Its `ElmoTokenizer`.
        folder: A new folder; it is there whole, or not at all.
        onnx: Write ONNX.
        program: Write a program of `torch.export`.
        with_state: As in `ElmoGraph`.

    Returns:
        The names of the graphs' files.

    Raises:
        ValueError: as `export_onnx`, and if there is something at `folder`.
        OSError: if the folder cannot be written.
    """
    graph = ElmoGraph(model, with_state)
    if onnx:
        check_onnx()
    with new_folder(folder) as temporary:
        if onnx:
            export_onnx(model, temporary / ONNX_FILE, with_state)
        if program:
            torch.export.save(export_program(model, with_state), temporary / PROGRAM_FILE)
        files = sorted(entry.name for entry in temporary.iterdir())
        model.config.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        (temporary / "README.md").write_text(_describe(graph, onnx, program), encoding="utf-8")
    return files


def check_onnx() -> None:
    """Raises ValueError if the packages are missing with which ONNX is written."""
    missing = [name for name in ("onnx", "onnxscript") if not _version(name)]
    if missing:
        raise ValueError(
            f"ONNX needs the package {' and '.join(missing)}: install hf_elmo with the extra onnx, pip install -c "
            'constraints.txt -e ".[onnx]".'
        )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Keeps to itself what the exporter has to say of its own inner works, and of packages that ELMo does not use."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _describe(graph: ElmoGraph, onnx: bool, program: bool) -> str:
    """The README.md of a folder of graphs."""
    inputs, free = graph.example_inputs(), graph.free_dimensions()
    with evaluating(graph), torch.no_grad():
        outputs = graph(**inputs)
    rows = [(name, [free[name].get(dim, size) for dim, size in enumerate(t.shape)], t) for name, t in inputs.items()]
    table = "\n".join(
        f"| `{name}` | ({', '.join(map(str, shape))}) | {_dtype_name(t.dtype)} |" for name, shape, t in rows
    )
    packages = ["hf_elmo", "torch", *(["onnx", "onnxscript"] if onnx else [])]
    parts = [
        f"# {type(graph.model).__name__} as a graph\n",
        f"Written with {', '.join(f'{name} {_version(name)}' for name in packages)}"
        f"{f' as ONNX of opset {OPSET}' if onnx else ''}. All of these inputs are to be given:\n",
        f"| input | shape | type |\n|---|---|---|\n{table}\n",
        f"Outputs, in this order: {', '.join(f'`{name}`' for name in outputs)}. Numbers of sentences and words (and of "
        "choices) may be any from 1. Ids are not checked: take them from the tokenizer in this folder, as here.\n",
    ]
    if onnx:
        parts.append(f"""## ONNX Runtime

```python
{_code_for_inputs(graph, "onnxruntime")}

session = onnxruntime.InferenceSession("{ONNX_FILE}", providers=["CPUExecutionProvider"])
names = [output.name for output in session.get_outputs()]
outputs = dict(zip(names, session.run(None, inputs)))
print({{name: array.shape for name, array in outputs.items()}})
```
""")
    if program:
        parts.append(f"""## torch

```python
{_code_for_inputs(graph, "torch")}

program = torch.export.load("{PROGRAM_FILE}").module()
with torch.no_grad():
    outputs = program(**{{name: torch.from_numpy(array) for name, array in inputs.items()}})
print({{name: tuple(tensor.shape) for name, tensor in outputs.items()}})
```
""")
    return "\n".join(parts)


def _code_for_inputs(graph: ElmoGraph, package: str) -> str:
    """Python that imports a package and makes `inputs` of a text; hf_elmo need not be installed for it."""
    texts = '["I read the book yesterday .", "Can you read the letter now ?"]'
    if isinstance(graph.model, ElmoForMultipleChoice):
        texts = '["It rains ."] * 2, ["We stay at home .", "We go out ."]'
    elif isinstance(graph.model, ElmoForQuestionAnswering):
        texts = '["Who read the book ?"], ["She read the book yesterday ."]'
    lines = [
        "import numpy as np",
        f"import {package}",
        "from transformers import AutoTokenizer",
        "",
        'tokenizer = AutoTokenizer.from_pretrained(".", trust_remote_code=True)',
        f'encoded = tokenizer({texts}, padding=True, return_tensors="np")',
    ]
    index = "[None]" if isinstance(graph.model, ElmoForMultipleChoice) else ""
    names = [name for name in graph.input_names if name not in ("hidden", "cell")]
    lines.append(f"inputs = {{name: encoded[name]{index}.astype(np.int64) for name in {names}}}")
    if graph.with_state:
        config = graph.model.config
        lines.append('batch = len(inputs["attention_mask"])')
        for name, size in (("hidden", config.projection_dim), ("cell", config.cell_size)):
            shape = f"(2, {config.num_layers}, batch, {size})"
            lines.append(f"inputs[{name!r}] = np.zeros({shape}, dtype=np.{_dtype_name(graph.model.dtype)})")
    return "\n".join(lines)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
