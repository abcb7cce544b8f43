"""The fill-mask pipeline: texts with `[MASK]` in, words that fit there out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from transformers import PythonBackend
from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from .scoring import check_language_model
from .substitution import substitutes

if TYPE_CHECKING:
    from ..model.modeling_elmo import ElmoForPreTraining
    from ..model.tokenization_elmo import ElmoTokenizer

logger = logging.get_logger(__name__)


class ElmoFillMaskPipeline(Pipeline):
    """Finds words for `[MASK]` in texts, as transformers' own fill-mask pipeline does for models with a mask token.

    ```python
    fill = pipeline("elmo-fill-mask", model=hf_elmo.bundled())
    fill("She [MASK] the letter.")
    # [{'score': 0.12, 'token': 15, 'token_str': 'was', 'sequence': 'She was the letter.', ...}, ...]
    ```

    A call takes a text or a list of texts, and as options `top_k` (5 by default, as in transformers), `targets`,
    `word_index`, `prior` and `special_words`. The results, the errors and the formula of the scores are those of
    `hf_elmo.substitutes`; but a list of one text gives what the text alone would, and targets outside of the vocabulary
    are left out with a warning (an error if there are no others), as in transformers.
    """

    # The library declares these as None, and its own pipelines set them so.
    _load_processor = _load_image_processor = _load_video_processor = _load_feature_extractor = False  # type: ignore[assignment]
    _load_tokenizer = True  # type: ignore[assignment]

    def __init__(
        self, model: ElmoForPreTraining, tokenizer: ElmoTokenizer | None = None, task: str = "", **kwargs: Any
    ):
        check_language_model(model, tokenizer)
        # The library's annotation leaves out its tokenizers in Rust.
        super().__init__(model=model, tokenizer=cast("PythonBackend | None", tokenizer), task=task, **kwargs)

    def __call__(self, inputs: str | list[str], *args: Any, **kwargs: Any) -> list[Any]:
        """Finds words for texts; see the class."""
        outputs = super().__call__(inputs, *args, **kwargs)
        return outputs[0] if isinstance(inputs, list) and len(inputs) == 1 else outputs

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        known = {"top_k", "targets", "word_index", "prior", "special_words"}
        if unknown := sorted(options.keys() - known):
            raise ValueError(f"The option {unknown[0]!r} is unknown; there are: {', '.join(sorted(known))}.")
        if options.get("targets") is not None:
            options["targets"] = self._known_targets(options["targets"])
        return {}, options, {}

    def _known_targets(self, targets: str | Sequence[str]) -> list[str]:
        """The targets that the vocabulary has; for each of the others a warning, as from transformers' own pipeline."""
        tokenizer = cast("ElmoTokenizer", self.tokenizer)
        targets = [targets] if isinstance(targets, str) else list(targets)
        special = {tokenizer.pad_token_id, tokenizer.unk_token_id}
        known = []
        for word in targets:
            number = tokenizer.convert_tokens_to_ids(word)
            if number in special:
                logger.warning(f"The target `{word}` is not a word of the model's vocabulary: it is left out.")
            else:
                known.append(word)
        if not known:
            raise ValueError(f"targets has no word of the model's vocabulary, was: {targets!r:.200}.")
        return known

    # The methods that follow name the parameters that the library's signatures leave open: unknown ones are refused.
    def preprocess(self, text: str) -> dict[str, Any]:  # type: ignore[override]
        """A text; the model's inputs are made in `_forward`, where all places of a batch are known."""
        return {"text": text}

    def _forward(  # type: ignore[override]
        self, inputs: dict[str, Any], top_k: int = 5, **options: Any
    ) -> dict[str, list[Any]]:
        model, tokenizer = cast("ElmoForPreTraining", self.model), cast("ElmoTokenizer", self.tokenizer)
        return {"found": substitutes(model, tokenizer, inputs["text"], top_k, **options)}

    def postprocess(self, outputs: dict[str, list[Any]]) -> list[Any]:  # type: ignore[override]
        """The words as they were found."""
        return outputs["found"]


__all__ = ["ElmoFillMaskPipeline"]
