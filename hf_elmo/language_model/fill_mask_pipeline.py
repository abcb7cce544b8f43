"""The fill-mask pipeline: texts with `[MASK]` in, words that fit there out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers.pipelines.base import Pipeline
from transformers.utils import logging

from .scoring import check_language_model
from .substitution import substitutes

logger = logging.get_logger(__name__)


class ElmoFillMaskPipeline(Pipeline):
    """Finds words for `[MASK]` in texts, as transformers' own fill-mask pipeline does for models with a mask token.

    ```python
    fill = pipeline("elmo-fill-mask", model=hf_elmo.bundled())
    fill("She [MASK] the letter.")
    # [{'score': 0.12, 'token': 15, 'token_str': 'was', 'sequence': 'She was the letter.', ...}, ...]
    ```

    A call takes a text or a list of texts, and as options `top_k` (5 by default, as in transformers), `targets`,
    `word_index`, `prior` and `special_words`. What it returns, which errors it raises and the formula of the scores:
    `hf_elmo.substitutes`. Unlike there, a list of one text gives what the text alone would, and targets outside of the
    vocabulary are left out with a warning (an error if there are no others), as in transformers.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = True

    def __init__(self, model, tokenizer=None, task: str = "", **kwargs):
        check_language_model(model, tokenizer)
        super().__init__(model=model, tokenizer=tokenizer, task=task, **kwargs)

    def __call__(self, inputs: str | list[str], **kwargs) -> list:
        """Finds words for texts; see the class."""
        outputs = super().__call__(inputs, **kwargs)
        return outputs[0] if isinstance(inputs, list) and len(inputs) == 1 else outputs

    def _sanitize_parameters(self, **options: Any) -> tuple[dict, dict, dict]:
        known = {"top_k", "targets", "word_index", "prior", "special_words"}
        if unknown := sorted(options.keys() - known):
            raise ValueError(f"The option {unknown[0]!r} is unknown; there are: {', '.join(sorted(known))}.")
        if options.get("targets") is not None:
            options["targets"] = self._known_targets(options["targets"])
        return {}, options, {}

    def _known_targets(self, targets: str | Sequence[str]) -> list[str]:
        """The targets that the vocabulary has; for each of the others a warning, as from transformers' own pipeline."""
        targets = [targets] if isinstance(targets, str) else list(targets)
        special = {self.tokenizer.pad_token_id, self.tokenizer.unk_token_id}
        known = []
        for word, number in zip(targets, self.tokenizer.convert_tokens_to_ids(targets), strict=True):
            if number in special:
                logger.warning(f"The target `{word}` is no word of the model's vocabulary: it is left out.")
            else:
                known.append(word)
        if not known:
            raise ValueError(f"targets holds no word of the model's vocabulary, was: {targets!r:.200}.")
        return known

    def preprocess(self, text: str) -> dict[str, Any]:
        """A text; the model's inputs are made in `_forward`, where all places of a batch are known."""
        return {"text": text}

    def _forward(self, inputs: dict[str, Any], top_k: int = 5, **options: Any) -> dict[str, list]:
        return {"found": substitutes(self.model, self.tokenizer, inputs["text"], top_k, **options)}

    def postprocess(self, outputs: dict[str, list]) -> list:
        """The words as they were found."""
        return outputs["found"]


__all__ = ["ElmoFillMaskPipeline"]
