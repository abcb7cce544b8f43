"""The question answering pipeline: questions and contexts as text in, answers as slices of the contexts out."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PythonBackend
from transformers.pipelines.base import ChunkPipeline
from transformers.utils import logging

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class Window:
    """What is needed to find a window's words in the context again.

    Attributes:
        context: The whole context.
        length: Words of the window's row, without padding.
        places: ``(words of the context in the window,)``: where in the row they stand.
        offsets: ``(words of the context in the window, 2)``: where in the context they start and end, in characters.
    """

    context: str
    length: int
    places: np.ndarray
    offsets: np.ndarray


class ElmoQuestionAnsweringPipeline(ChunkPipeline):
    """Answers questions with spans of their contexts, as transformers' own pipeline did before version 5.3.

    With this package imported, `pipeline("elmo-question-answering", model=...)`; by the code in a saved model's folder,
    `pipeline("question-answering", model=folder, trust_remote_code=True)`.

    ```python
    answerer = pipeline("elmo-question-answering", model=folder)
    answerer(question="Where do I live?", context="My name is Sarah and I live in London")
    # {'score': 0.98, 'start': 31, 'end': 37, 'answer': 'London'}
    ```

    What differs from the pipeline of version 5.2.0: contexts are cut into windows only beyond 2,048 words, because ELMo
    has no limit of its own; `max_question_len` holds; a word is a token, so that `align_to_words` changes nothing; an
    answer found in several windows has the highest of its scores, not their sum; dictionaries may have more keys than
    the two that are read.
    """

    # The library declares these as None, and its own pipelines set them so.
    _load_processor = _load_image_processor = _load_video_processor = _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer, default_input_names = True, "question,context"  # type: ignore[assignment]

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        task: str = "",
        **kwargs: Any,
    ):
        if "start_positions" not in inspect.signature(model.forward).parameters:
            raise ValueError(
                f"{type(model).__name__} does not answer questions: load the model with AutoModelForQuestionAnswering."
            )
        # The library's annotation leaves out its tokenizers in Rust.
        super().__init__(model=model, tokenizer=cast("PythonBackend | None", tokenizer), task=task, **kwargs)
        # A model that was just trained is still in training mode, where answers depend on the random state.
        self.model.eval()

    def __call__(
        self,
        *args: Any,
        question: str | list[str] | None = None,
        context: str | list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Answers questions.

        Args:
            args: A dictionary with the keys `question` and `context`, or an object with `question_text` and
                `context_text` (transformers' `SquadExample`), or a list of these, or a `datasets.Dataset` with these
                columns; or a question and a context, both strings. A generator or a torch `Dataset` of such
                dictionaries gives an iterator.
            question: A string, or a list of strings.
            context: A string, or a list of strings; one string serves all questions.
            top_k: Number of answers, the likeliest first. There are fewer if the context has no more.
            doc_stride: Words of the context that neighbouring windows share. Default: 128, or half of the room for the
                context if that is less.
            max_answer_len: Words of the longest answer; 15 by default.
            max_seq_len: Words of the longest window, question and marks of sentences included. Default: 2,048, or the
                tokenizer's `model_max_length` if that is less.
            max_question_len: Words of the question beyond which it is cut; 64 by default.
            handle_impossible_answer: Also give the answer that there is none: an empty string at 0.
            align_to_words: Without effect, since answers begin and end with words in any case.
            batch_size: Windows that go through the model together; 1 by default.

        Returns:
            For one question (a list of one question included) a dictionary, or a list of them if `top_k` gives several;
            for a list of questions a list of these. The dictionaries hold

            - `score`: product of the probabilities of start and end, over the window's words and "no answer". Spans
              of the same letters, case aside, count as one answer: their scores in one window are added, and of several
              windows the best one counts.
            - `start`, `end`: where the answer starts and ends in the context, in characters.
            - `answer`: `context[start:end]`.

        Raises:
            KeyError: for a dictionary without question or context.
            ValueError: for a question or context without words, for inputs of another form, and for window sizes that
                leave no room for the context.
        """
        examples = _examples(args, question, context)
        if isinstance(examples, list):
            if not examples:
                return []
            if len(examples) == 1:
                return super().__call__(examples[0], **kwargs)
        return super().__call__(examples, **kwargs)

    # The methods that follow name the parameters that the library's signatures leave open: unknown ones are refused.
    def _sanitize_parameters(  # type: ignore[override]
        self,
        top_k: int | None = None,
        doc_stride: int | None = None,
        max_answer_len: int | None = None,
        max_seq_len: int | None = None,
        max_question_len: int | None = None,
        handle_impossible_answer: bool | None = None,
        align_to_words: bool | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        for name, value, least in (
            ("top_k", top_k, 1),
            ("max_answer_len", max_answer_len, 1),
            ("max_question_len", max_question_len, 1),
            ("max_seq_len", max_seq_len, 1),
            ("doc_stride", doc_stride, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, was: {value}.")
        preprocess = {"doc_stride": doc_stride, "max_seq_len": max_seq_len, "max_question_len": max_question_len}
        postprocess = {
            "top_k": top_k,
            "max_answer_len": max_answer_len,
            "handle_impossible_answer": handle_impossible_answer,
        }
        return _given(preprocess), {}, _given(postprocess)

    def preprocess(  # type: ignore[override]
        self, example: Any, doc_stride: int | None = None, max_question_len: int = 64, max_seq_len: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """One question, to the windows that the model reads."""
        tokenizer = self._words()
        example = _example(example)
        context = example["context"]
        question, question_length = self._cut_question(example["question"], max_question_len)
        if max_seq_len is None:
            max_seq_len = min(tokenizer.model_max_length, 2048)
        room = max_seq_len - question_length - tokenizer.num_special_tokens_to_add(pair=True)
        if room < 1:
            raise ValueError(
                f"A window of {max_seq_len} words has no room for the context beside a question of {question_length} "
                f"words: raise max_seq_len to more than {max_seq_len - room}, or lower max_question_len."
            )
        if doc_stride is None:
            doc_stride = min(128, room // 2)
        elif doc_stride >= room:
            raise ValueError(
                f"doc_stride ({doc_stride}) must be less than the {room} words that a window of {max_seq_len} has for "
                f"the context beside a question of {question_length}: lower doc_stride or raise max_seq_len."
            )
        # The model knows which segment is the question; on which side the padding will be does not matter here.
        question_first = self.model.config.question_segment == 0
        windows = tokenizer(
            question if question_first else context,
            context if question_first else question,
            truncation="only_second" if question_first else "only_first",
            max_length=max_seq_len,
            stride=doc_stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
        )
        count = len(windows["input_ids"])
        for number in range(count):
            segments = windows.sequence_ids(number)
            places = np.array([place for place, kind in enumerate(segments) if kind == int(question_first)], np.int64)
            if len(places) == 0:
                raise ValueError(f"The context {context[:80]!r} has no words in which an answer could be found.")
            inputs = {name: torch.tensor(windows[name][number])[None] for name in tokenizer.model_input_names}
            offsets = np.array(windows["offset_mapping"][number])[places]
            yield {
                **inputs,
                "window": Window(context=context, length=len(segments), places=places, offsets=offsets),
                "is_last": number == count - 1,
            }

    def _cut_question(self, question: str, longest: int) -> tuple[str, int]:
        """The question, cut behind that many words, and the number of its words."""
        offsets = self._words()(question, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        if not offsets:
            raise ValueError(f"The question {question!r} has no words.")
        if len(offsets) <= longest:
            return question, len(offsets)
        logger.warning_once(
            f"A question of {len(offsets)} words was cut behind {longest} (max_question_len); perhaps others, too."
        )
        return question[: offsets[longest - 1][1]], longest

    def _words(self) -> PreTrainedTokenizerBase:
        """The tokenizer.

        Raises:
            ValueError: if the pipeline was made without one.
        """
        if self.tokenizer is None:
            raise ValueError("The pipeline has no tokenizer: pass tokenizer=...")
        return self.tokenizer

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:  # type: ignore[override]
        outputs = self.model(**{name: inputs[name] for name in self._words().model_input_names})
        return {
            "start": outputs["start_logits"].float(),
            "end": outputs["end_logits"].float(),
            "window": inputs["window"],
            "is_last": inputs["is_last"],
        }

    def postprocess(  # type: ignore[override]
        self,
        windows: list[dict[str, Any]],
        top_k: int = 1,
        max_answer_len: int = 15,
        handle_impossible_answer: bool = False,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """The windows' scores, to the answers in their context."""
        answers: dict[str, dict[str, Any]] = {}
        no_answer_score = 1.0
        for output in windows:
            start, end = (self._probabilities(output[name][0].numpy(), output["window"]) for name in ("start", "end"))
            no_answer_score = min(no_answer_score, float(start[0] * end[0]))
            # Some of them will be the same answer.
            spans = best_spans(start[1:], end[1:], 2 * top_k + 10, max_answer_len)
            for text, answer in _answers(output["window"], *spans).items():
                if text not in answers or answers[text]["score"] < answer["score"]:
                    answers[text] = answer
        found = list(answers.values())
        if handle_impossible_answer:
            found.append({"score": no_answer_score, "start": 0, "end": 0, "answer": ""})
        found = sorted(found, key=lambda answer: -answer["score"])[:top_k]
        return found[0] if len(found) == 1 else found

    def _probabilities(self, logits: np.ndarray, window: Window) -> np.ndarray:
        """``(1 + words of the context in the window,)``: of "no answer", and of each word."""
        padding = len(logits) - window.length if self._words().padding_side == "left" else 0
        return probabilities(np.concatenate([logits[:1], logits[window.places + padding]]))


def _answers(window: Window, first: np.ndarray, last: np.ndarray, scores: np.ndarray) -> dict[str, dict]:
    """The spans' answers, by their letters in lower case: equal ones together, at the place of the best."""
    answers: dict[str, dict] = {}
    for start, end, score in zip(window.offsets[first, 0].tolist(), window.offsets[last, 1].tolist(), scores.tolist()):
        answer = window.context[start:end]
        known = answers.setdefault(answer.lower(), {"score": 0.0, "start": start, "end": end, "answer": answer})
        known["score"] += score
    return answers


def _given(parameters: dict) -> dict:
    return {name: value for name, value in parameters.items() if value is not None}


def _examples(args: tuple, question: Any, context: Any) -> Any:
    """What was asked, in whatever form: a list of dictionaries, or what gives them one by one."""
    if args and (question is not None or context is not None):
        raise ValueError("Give either question=... and context=..., or examples that hold both, but not all of them.")
    if not args:
        return _paired(question, context)
    if len(args) == 2 and all(isinstance(entry, str) for entry in args):
        return _paired(*args)
    examples = args[0] if len(args) == 1 else list(args)
    if isinstance(examples, (types.GeneratorType, Dataset)):
        return examples
    if isinstance(examples, Mapping):
        if isinstance(examples.get("question"), list) or isinstance(examples.get("context"), list):
            return _paired(examples.get("question"), examples.get("context"))
        return [_example(examples)]
    if isinstance(examples, Iterable) and not isinstance(examples, str):
        return [_example(example) for example in examples]
    return [_example(examples)]


def _paired(questions: Any, contexts: Any) -> list[dict]:
    if questions is None or contexts is None:
        raise ValueError("Both question=... and context=... are needed: at least one of them is missing.")
    if isinstance(questions, str) and isinstance(contexts, str):
        questions, contexts = [questions], [contexts]
    elif isinstance(contexts, str):
        contexts = [contexts] * len(questions)
    elif isinstance(questions, str):
        questions = [questions] * len(contexts)
    if len(questions) != len(contexts):
        raise ValueError(f"There are {len(questions)} questions, but {len(contexts)} contexts.")
    return [_example({"question": q, "context": c}) for q, c in zip(questions, contexts)]


def _example(example: Any) -> dict[str, str]:
    """One example in any of its forms, as a dictionary of two strings."""
    if not isinstance(example, Mapping):
        if not (hasattr(example, "question_text") and hasattr(example, "context_text")):
            raise ValueError(
                "An example is a dictionary with the keys 'question' and 'context', or an object with question_text "
                f"and context_text, was: {example!r:.200}."
            )
        example = {"question": example.question_text, "context": example.context_text}
    for key in ("question", "context"):
        if key not in example:
            raise KeyError(f"The example has no {key!r}: it must be a dictionary with 'question' and 'context'.")
        if not isinstance(example[key], str) or not example[key].strip():
            raise ValueError(f"The {key} must be a string with at least one word, was: {example[key]!r:.200}.")
    return {key: example[key] for key in ("question", "context")}


__all__ = ["ElmoQuestionAnsweringPipeline"]


def best_spans(
    start: np.ndarray, end: np.ndarray, count: int, max_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The spans with the highest product of the probabilities of start and end.

    Time and memory are linear in the number of words (times `max_length`).

    Args:
        start: ``(words,)``, the probability of each word to be the span's first.
        end: ``(words,)``, likewise its last.
        count: How many spans.
        max_length: Words of the longest span.

    Returns:
        First words, last words and products, each ``(count,)`` or as many as there are; the best first, among equals
        the one that starts, then the one that ends, earlier.

    Raises:
        ValueError: if `count` or `max_length` is below 1, or the two are not of one length.
    """
    if count < 1 or max_length < 1:
        raise ValueError(f"count and max_length must be at least 1, were: {count} and {max_length}.")
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(f"start and end must be of one length, were: {start.shape} and {end.shape}.")
    words = len(start)
    width = min(max_length, words)
    if words == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, start.dtype)
    # Row i holds the ends that word i can have; those behind the last word cannot be.
    reachable = np.lib.stride_tricks.sliding_window_view(np.pad(end, (0, width - 1), constant_values=-1), width)
    products = np.where(reachable < 0, -1, start[:, None] * reachable).ravel()
    count = min(count, int((products >= 0).sum()))
    # The worst that is let in decides, so that the choice among equals is not left to the sort.
    bound = np.partition(products, len(products) - count)[len(products) - count]
    chosen = np.flatnonzero(products >= bound)
    chosen = chosen[np.argsort(-products[chosen], kind="stable")][:count]
    first, length = np.divmod(chosen, width)
    return first, first + length, products[chosen]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """The softmax of ``(words,)`` scores, float64.

    Raises:
        ValueError: if scores are not numbers, as those of a model with damaged weights.
    """
    exact = logits.astype(np.float64)
    if np.isnan(exact).any():
        raise ValueError("The model's scores are not numbers (NaN): its weights are damaged, or its training diverged.")
    weights = np.exp(exact - exact.max())
    return weights / weights.sum()
