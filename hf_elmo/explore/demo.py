"""The demo: a page on which anybody can see how a word moves with its sentence. It is a Space of the hub, too.

The page asks nobody for anything: no statistics are sent, and fonts, scripts and styles come from this machine.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

# Is read when gradio is imported, and asks for more than the page's own switch: checking for new versions, too.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
try:
    import gradio
except ImportError as error:
    raise ImportError(
        f'The demo needs gradio: install the extra, as in python -m pip install -e ".[demo]". ({error})'
    ) from error

from .demo_guard import LOOPBACK, RequestGuard
from .demo_page import CSS, render, render_problem
from .example_sentences import EXAMPLE_PAIRS
from .explorer import Explorer, VisitorError, shared_place

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoPreTrainedModel
    from ..model.tokenization_elmo import ElmoTokenizer

logger = logging.getLogger(__name__)

TITLE = "ELMo: how a word moves"
HOST = "127.0.0.1"

_ABOUT = """# How a word moves

ELMo gives every word a vector that depends on its whole sentence. Type two sentences, pick a word of each, and see how
near their vectors are in every layer of the model.
"""
# Waiting visitors; a further one is told that there are too many.
_MOST_WAITING = 32

_Answer = TypeVar("_Answer")
#: The choices of both sentences' words, the two texts, and the result as HTML.
_Compared: TypeAlias = tuple[dict[str, Any], dict[str, Any], list[str], str]


def build_page(explorer: Explorer) -> gradio.Blocks:
    """Makes the page.

    Args:
        explorer: Answers what visitors ask.

    Returns:
        The page, for `launch`.
    """
    beginning = EXAMPLE_PAIRS[0][1:]
    first_choices, second_choices, texts, result = _compare(explorer, *beginning)
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.Markdown(_ABOUT)
        with gradio.Row():
            first = gradio.Textbox(
                beginning[0], label="First sentence", lines=1, max_lines=5, elem_id="first", min_width=280
            )
            second = gradio.Textbox(
                beginning[1], label="Second sentence", lines=1, max_lines=5, elem_id="second", min_width=280
            )
        with gradio.Row():
            compare = gradio.Button("Compare", variant="primary", size="md", elem_id="compare", min_width=120)
            examples = [
                (gradio.Button(f"Example: {name}", size="md", elem_id=f"example-{name}", min_width=120), pair)
                for name, *pair in EXAMPLE_PAIRS
            ]
        with gradio.Row():
            first_word = gradio.Radio(
                **first_choices, label="Word of the first sentence", elem_id="first-word", min_width=280
            )
            second_word = gradio.Radio(
                **second_choices, label="Word of the second sentence", elem_id="second-word", min_width=280
            )
        shown = gradio.HTML(result, elem_id="result", js_on_load=None, apply_default_css=False)
        # What was compared, which is not what is being typed.
        state = gradio.State(texts)

        outputs = [first_word, second_word, state, shown]
        # One at a time: the model has one set of threads.
        event = {
            "concurrency_id": "model",
            "concurrency_limit": 1,
            "api_visibility": "private",
            "show_progress": "minimal",
        }

        def on_compare(first_text: str, second_text: str) -> tuple[gradio.Radio, gradio.Radio, list[str], str]:
            first_new, second_new, texts, result = _compare(explorer, first_text, second_text)
            return gradio.Radio(**first_new), gradio.Radio(**second_new), texts, result

        for trigger in (compare.click, first.submit, second.submit):
            trigger(on_compare, [first, second], outputs, **event)
        for button, pair in examples:
            # With the example typed in, as if the visitor had done it.
            button.click(lambda pair=pair: pair, None, [first, second], api_visibility="private").then(
                on_compare, [first, second], outputs, **event
            )
        for radio in (first_word, second_word):
            radio.input(
                lambda texts, i, j: _pick(explorer, texts, i, j), [state, first_word, second_word], shown, **event
            )
    page.queue(max_size=_MOST_WAITING)
    return page


def _compare(explorer: Explorer, first: str, second: str) -> _Compared:
    """The choices of words, the texts that they are of, and the result; no choices if something is wrong."""

    def answer() -> _Compared:
        one, other = explorer.split(first, "first sentence"), explorer.split(second, "second sentence")
        places = shared_place(one, other)
        choices, other_choices = (
            {"choices": [(_label(word), place) for place, word in enumerate(words)], "value": chosen}
            for words, chosen in zip((one, other), places, strict=True)
        )
        return choices, other_choices, [first, second], render(explorer.explore(one, other, places))

    none: dict[str, Any] = {"choices": [], "value": None}
    return _guarded(answer, lambda problem: (none, none, [], problem))


def _pick(explorer: Explorer, texts: list[str], first_place: int, second_place: int) -> str:
    def answer() -> str:
        if len(texts) != 2:
            raise VisitorError("There is nothing to pick a word of: type two sentences, and compare them.")
        one, other = (explorer.split(text) for text in texts)
        return render(explorer.explore(one, other, (first_place, second_place)))

    return _guarded(answer, lambda problem: problem)


def _guarded(answer: Callable[[], _Answer], otherwise: Callable[[str], _Answer]) -> _Answer:
    """The answer, or what is said otherwise: to a visitor what was wrong with the input, and nothing of the inside."""
    try:
        return answer()
    except VisitorError as error:
        return otherwise(render_problem(str(error)))
    except Exception:
        logger.exception("The demo could not answer")
        return otherwise(render_problem("Something went wrong here, which is not your fault. Try another sentence."))


def _label(word: str) -> str:
    """A word as the name of a choice."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in word)
    return shown if len(shown) <= 24 else f"{shown[:12]}…{shown[-11:]}"


def load_explorer(model: str | Path | None = None, tagger: str | Path | None = None) -> Explorer:
    """Loads what the page needs.

    Args:
        model: A model folder; None: the bundled model. One with a softmax over words finds substitutes, too.
        tagger: The folder of an `ElmoForTokenClassification`, or None.

    Raises:
        ValueError: for a folder that is not what it is to be.
    """
    from ..hub.folders import load, load_language_model, load_tagger

    name = None if model is None else str(model)
    loaded: tuple[ElmoPreTrainedModel, ElmoTokenizer]
    try:
        loaded = load_language_model(name)
    except ValueError:
        # Vectors without a softmax are a model, too; what else may be wrong is said now.
        loaded = load(name)
    return Explorer(*loaded, *(load_tagger(str(tagger)) if tagger is not None else ()))


def launch(
    page: gradio.Blocks,
    host: str | None = None,
    port: int | None = None,
    share: bool = False,
    browser: bool = False,
    block: bool = True,
) -> str:
    """Serves the page: to this machine's own names only where it listens to this machine alone, and without uploads.

    Args:
        page: The page.
        host: The address to listen at. None: what the variable GRADIO_SERVER_NAME says (Spaces set it), or else this
            machine alone (127.0.0.1).
        port: The port. None: GRADIO_SERVER_PORT, or else the first free one from 7860.
        share: Also open a tunnel, through servers of gradio's makers, by which everybody can reach the page.
        browser: Open the page in a browser.
        block: Return only when the process is interrupted.

    Returns:
        The page's address.

    Raises:
        OSError: if the address is in use.
    """
    from starlette.middleware import Middleware

    host = host or os.environ.get("GRADIO_SERVER_NAME") or HOST
    # Machines that reach another address may have any name for it.
    hosts = (*LOOPBACK, host, "*.gradio.live") if host == "localhost" or host.startswith("127.") else None
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        show_error=False,
        ssr_mode=False,
        pwa=False,
        run_history=False,
        footer_links=[],
        enable_monitoring=False,
        # Nothing is to be uploaded.
        max_file_size="1kb",
        app_kwargs={"middleware": [Middleware(RequestGuard, hosts=hosts)]},
        css=CSS,
        theme=gradio.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")),
    )
    if block:
        page.block_thread()
    return address
