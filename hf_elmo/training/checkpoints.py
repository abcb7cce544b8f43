"""Checkpoints that are whole: a folder gets its name when everything in it is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

from ..whole_files import move_content, move_folder

# Trainer.push_to_hub leaves out what begins with an underscore.
UNFINISHED = "_unfinished"


class WholeCheckpoints(Trainer):
    """A `transformers.Trainer` whose checkpoints are whole; before another kind of `Trainer` among a class's bases.

    The stock `Trainer` writes a checkpoint piece by piece under its final name, so that a process killed in the middle
    leaves a part of one, from which the next run then resumes. Here a checkpoint is written under another name, and
    renamed. Weights that are not finite are not saved.
    """

    _writes_checkpoint = False

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if self._writes_checkpoint else folder

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run = Path(self._get_output_dir(trial))
        unfinished, name = run / UNFINISHED, f"checkpoint-{self.state.global_step}"
        self._check_weights()
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self._writes_checkpoint = True
        try:
            super()._save_checkpoint(model, trial)
        # On a full disk torch and safetensors raise errors of their own.
        except (OSError, RuntimeError, SafetensorError) as error:
            raise OSError(
                f"The checkpoint of step {self.state.global_step} could not be written to {run} ({error}). "
                f"{self._whole_so_far()} Make room there, and resume."
            ) from error
        finally:
            self._writes_checkpoint = False
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            if self.state.best_model_checkpoint == str(unfinished / name):
                self.state.best_model_checkpoint = str(run / name)
                self.state.save_to_json(str(unfinished / name / "trainer_state.json"))
            # On the disk before older checkpoints are deleted for it.
            move_folder(unfinished / name, run / name)
            unfinished.rmdir()
            rotate_checkpoints(
                output_dir=str(run),
                save_total_limit=self.args.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,
                use_mtime=True,
            )
        self.accelerator.wait_for_everyone()

    def _check_weights(self) -> None:
        assert self.model is not None, "Trainer has a model once it is made"
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise FloatingPointError(
                    f"After step {self.state.global_step} weights are not finite ({name}), so they are not saved. "
                    f"{self._whole_so_far()} Lower the learning rate, and resume."
                )

    def _whole_so_far(self) -> str:
        folder = self._run_folder()
        last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
        return f"The last whole checkpoint is {last}." if last else "There is no checkpoint yet."

    def _run_folder(self) -> Path:
        assert self.args.output_dir is not None, "TrainingArguments has a default"
        return Path(self.args.output_dir)

    def save_whole_model(self) -> None:
        """As `Trainer.save_model` to the output folder, whose files are replaced when all new ones are written."""
        run = self._run_folder()
        unfinished = run / UNFINISHED
        if self.args.should_save:
            shutil.rmtree(unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        self.save_model(str(unfinished))
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            move_content(unfinished, run, overwrite=True)
            unfinished.rmdir()
        self.accelerator.wait_for_everyone()
