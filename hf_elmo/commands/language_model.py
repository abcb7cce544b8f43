"""`hf-elmo perplexity`: what a language model makes of text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import print_table
from .models import find_folder, silence_libraries

Texts = Annotated[list[Path], typer.Argument(help="UTF-8 text, plain or .gz.")]
KeepLines = Annotated[bool, typer.Option("--keep-lines", help="A line is a sentence: do not split lines.")]


def perplexity(
    files: Texts,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Model folder. [default: elmo-mini]")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences at a time.")] = 32,
    keep_lines: KeepLines = False,
) -> None:
    """Score text with a language model: full softmax, exact over all words, every sentence on its own."""
    from datasets import disable_progress_bars

    from .. import ElmoForPreTraining, ElmoTokenizer
    from ..corpus import read_sentences
    from ..language_model import perplexity as score

    folder = find_folder(model)
    silence_libraries()
    disable_progress_bars()
    language_model, report = ElmoForPreTraining.from_pretrained(folder, output_loading_info=True)
    if report["missing_keys"]:
        raise ValueError(
            f"{folder} holds no language model: {', '.join(sorted(report['missing_keys'])[:3])} are missing. "
            "Published ELMo weights come without the softmax."
        )
    tokenizer = ElmoTokenizer.from_pretrained(folder)
    rows = []
    for file in files:
        sentences = read_sentences([file], split_sentences=not keep_lines)
        result = score(language_model, tokenizer, sentences["text"], batch_size)
        rows.append(
            (str(file), len(sentences), result.words, result.unknown, result.forward, result.backward, result.mean)
        )
    print_table(("text", "sentences", "words", "unknown", "forward", "backward", "mean"), rows, "Perplexity")
