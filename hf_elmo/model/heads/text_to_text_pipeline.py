"""The pipelines that write: sources as text in, translations or summaries as text out."""

from __future__ import annotations

from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase, PythonBackend
from transformers.pipelines.base import Pipeline

# What steers the tokenizer; all other options are those of `generate`.
_OF_THE_TOKENIZER = ("truncation", "max_source_length")
_NAMES = {"translation": "translation_text", "summarization": "summary_text"}


class ElmoTextToTextPipeline(Pipeline):
    """Writes a text for each source, as transformers' pipelines "translation" and "summarization" did before 5.3.

    ```python
    translate = pipeline("elmo-translation", model=folder)
    translate("A dog runs .", num_beams=4, max_new_tokens=40)
    # [{'translation_text': '...'}]
    ```

    The class is one for both tasks, `"elmo-translation"` and `"elmo-summarization"`, which differ in the name of the
    text in the results. By the code in a saved model's folder: `pipeline("translation", model=folder,
    trust_remote_code=True)`, or `"summarization"`.
    """

    # The library declares these as None, and its own pipelines set them so.
    _load_processor = _load_image_processor = _load_video_processor = _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = True  # type: ignore[assignment]

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase | None = None,
        task: str = "",
        **kwargs: Any,
    ):
        if not (model.config.is_encoder_decoder and model.can_generate()):
            raise ValueError(
                f"{type(model).__name__} does not write texts: load an ElmoEncoderDecoderModel, with "
                "AutoModelForSeq2SeqLM."
            )
        _check_pair(model, tokenizer)
        # The library's annotation leaves out tokenizers that are not its own.
        super().__init__(model=model, tokenizer=cast("PythonBackend | None", tokenizer), task=task, **kwargs)
        # A model that was just trained is still in training mode, where texts depend on the random state.
        self.model.eval()

    def __call__(self, sources: Any, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Writes texts.

        Args:
            sources: A text, a list of texts, or a generator or `Dataset` of texts, which gives an iterator.
            args: Refused: options have names.
            max_source_length: Words (`<S>` and `</S>` included) behind which sources are cut, with
                `truncation=True`.
            truncation: As in the tokenizer; False by default.
            batch_size: Sources that go through the model together; 1 by default. The texts do not depend on it.
            kwargs: Options of `generate`, such as `num_beams`, `max_new_tokens`, `do_sample`, `num_return_sequences`.

        Returns:
            For one text a list with a dictionary, with the key `translation_text` or `summary_text`; for a list of
            texts a list of such dictionaries. With `num_return_sequences`, lists of several in their places.

        Raises:
            ValueError: for sources without words, and for options that `generate` does not know.
            TypeError: for sources that are not texts.
        """
        if args:
            raise TypeError("The options of this pipeline have names: give them as name=value.")
        is_list = isinstance(sources, (list, tuple))
        if is_list and not sources:
            return []
        for source in sources if is_list else ():
            _check_text(source)
        results = super().__call__(list(sources) if is_list else sources, **kwargs)
        if is_list and all(len(result) == 1 for result in results):
            return [result[0] for result in results]
        return results

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        preprocess = {name: options.pop(name) for name in _OF_THE_TOKENIZER if name in options}
        return preprocess, options, {}

    def preprocess(  # type: ignore[override]
        self, source: str, truncation: bool = False, max_source_length: int | None = None
    ) -> dict[str, Any]:
        """A source, to what the model reads."""
        _check_text(source)
        tokenizer = cast("PreTrainedTokenizerBase", self.tokenizer)
        return dict(tokenizer(source, truncation=truncation, max_length=max_source_length, return_tensors="pt"))

    def _forward(self, inputs: dict[str, Any], **options: Any) -> dict[str, Any]:  # type: ignore[override]
        model = cast("Any", self.model)
        written = model.generate(**inputs, **options)
        written = getattr(written, "sequences", written)
        # One row for each source, so that a batch falls apart into what the sources alone would give.
        return {"written": written.unflatten(0, (len(inputs["input_ids"]), -1))}

    def postprocess(self, outputs: dict[str, Any]) -> list[dict[str, str]]:  # type: ignore[override]
        """The texts of one source."""
        tokenizer = cast("PreTrainedTokenizerBase", self.tokenizer)
        texts = tokenizer.batch_decode(outputs["written"][0], skip_special_tokens=True)
        return [{_NAMES.get(self.task.removeprefix("elmo-"), "generated_text"): text.strip()} for text in texts]


def _check_text(source: Any) -> None:
    if not isinstance(source, str):
        raise TypeError(f"A source must be a text (str), was: {type(source).__name__}.")


def _check_pair(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None) -> None:
    """Raises ValueError for a tokenizer that is not that of the model's sources and targets."""
    if tokenizer is None or not hasattr(tokenizer, "target"):
        raise ValueError(
            "This pipeline needs an ElmoEncoderDecoderTokenizer, with a tokenizer for sources and one for targets, "
            f"was: {type(tokenizer).__name__}. Save one beside the model: "
            "ElmoEncoderDecoderTokenizer(source, target).save_pretrained(folder)."
        )
    size = model.config.decoder.vocab_size
    if len(tokenizer) > size:
        raise ValueError(
            f"The target tokenizer has {len(tokenizer)} tokens, but the decoder's vocabulary has {size}: they are not "
            "of one model."
        )
    ends = model.generation_config.eos_token_id
    ends = ends if isinstance(ends, (list, tuple)) else [ends]
    if tokenizer.eos_token_id not in ends:
        raise ValueError(
            f"The target tokenizer ends a text with the id {tokenizer.eos_token_id} ({tokenizer.eos_token}), but the "
            f"model with {ends}: they are not of one model."
        )


__all__ = ["ElmoTextToTextPipeline"]
