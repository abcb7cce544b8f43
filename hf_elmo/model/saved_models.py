"""How every model of this package is loaded, saved and pushed to the hub."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, Literal, Self, cast, overload

from transformers import PreTrainedModel

from .lstm.bilstm import BiLstm
from .lstm.lstm_layer import is_quantized
from .model_files import check_local_weights
from .remote_code import add_remote_code


class SavedElmo(PreTrainedModel):
    """A `PreTrainedModel` whose folders are checked, and hold the code of all ELMo models; to be a class's first base.

    A subclass says where its LSTMs are (`_bilstm`), and what is to be done with a loaded model (`_after_loading`).
    """

    # Called with the folder, the repository and the model's name before a push: where hf_elmo is installed, its
    # registration puts a function here that fills in the model card.
    fill_card: ClassVar[Callable[[str, str, str], None] | None] = None

    @property
    def _bilstm(self) -> BiLstm:
        raise NotImplementedError

    def _after_loading(self, source: str | os.PathLike | None, report: dict[str, Any]) -> None:
        """Checks what was loaded, and freezes what is not trained.

        Args:
            source: The folder or the name.
            report: What `output_loading_info` returns.
        """
        raise NotImplementedError

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        output_loading_info: Literal[True],
        **kwargs: Any,
    ) -> tuple[Self, dict[str, Any]]: ...

    @overload
    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        output_loading_info: Literal[False] = False,
        **kwargs: Any,
    ) -> Self: ...

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike | None,
        *args: Any,
        output_loading_info: bool = False,
        **kwargs: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """As in `transformers.PreTrainedModel`; parameters that are not to be trained stay frozen.

        Raises:
            ValueError: for a folder with the configuration or the weights of another model or task, or with a part of
                the weights alone; for one whose weights lie elsewhere, in what is not a regular file, or are not
                floating-point numbers.
        """
        if pretrained_model_name_or_path is not None and kwargs.get("state_dict") is None:
            check_local_weights(pretrained_model_name_or_path, kwargs.get("subfolder") or "", kwargs.get("variant"))
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, output_loading_info=True, **kwargs)
        # The library's annotation leaves out the pair that output_loading_info asks for.
        model, report = cast("tuple[Self, dict[str, Any]]", loaded)
        # Loading makes new parameters, all of which require gradients.
        model._after_loading(pretrained_model_name_or_path, report)
        return (model, report) if output_loading_info else model

    def save_pretrained(
        self, save_directory: str | os.PathLike, is_main_process: bool = True, *args: Any, **kwargs: Any
    ) -> None:
        """As in `transformers.PreTrainedModel`; the folder also gets the code of all ELMo models (`remote_code.py`)."""
        if any(map(is_quantized, self._bilstm.forward_layers)):
            raise ValueError("A quantised model has no weights to save: save the model that it was made of.")
        if is_main_process and not os.path.isfile(save_directory):
            add_remote_code(self.config, save_directory, [each.__name__ for each in type(self).__mro__])
        super().save_pretrained(save_directory, is_main_process, *args, **kwargs)

    def _upload_modified_files(self, working_dir: str | os.PathLike, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        """As in the library, which uploads through this; a card that the library left to be filled in is filled in."""
        fill_card = type(self).fill_card
        if fill_card is not None:
            fill_card(os.fspath(working_dir), repo_id, self.name_or_path or "")
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)

    @classmethod
    def register_for_auto_class(cls, auto_class: str | type = "AutoModel") -> None:
        """As in `transformers.PreTrainedModel`; without effect on the models of this package."""
        # The library calls this on loading remote code. The library would then save the one file of this class, and the
        # next model loaded from there could not save the others any more.
        if not cls.__module__.startswith(__name__.rpartition(".")[0] + "."):
            super().register_for_auto_class(auto_class)
