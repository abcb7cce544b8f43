"""Checkpoints that are whole: a folder gets its name when everything in it is written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers.trainer_utils import get_last_checkpoint, rotate_checkpoints

from ..whole_files import move_content, move_folder

# Trainer.push_to_hub leaves out what begins with an underscore.
UNFINISHED = "_unfinished"


class WholeCheckpoints:
    """A mixin for `transformers.Trainer`, to be named before it.

    The stock `Trainer` writes a checkpoint piece by piece under its final name, so that a process killed in the middle
    leaves a part of one, from which the next run then resumes. Here it is written under another name, and renamed. Nor
    are weights saved that are no numbers.
    """

    _writes_checkpoint = False

    def _get_output_dir(self, trial) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if self._writes_checkpoint else folder

    def _save_checkpoint(self, model, trial) -> None:
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
        for name, parameter in self.model.named_parameters():
            if not torch.isfinite(parameter).all():
                raise FloatingPointError(
                    f"After step {self.state.global_step} the weights are no numbers any more ({name}), so they are "
                    f"not saved. {self._whole_so_far()} Lower the learning rate, and resume."
                )

    def _whole_so_far(self) -> str:
        folder = self.args.output_dir
        last = get_last_checkpoint(folder) if os.path.isdir(folder) else None
        return f"The last whole checkpoint is {last}." if last else "There is no checkpoint yet."

    def save_whole_model(self) -> None:
        """As `Trainer.save_model` to the output folder, whose files are replaced when all new ones are written."""
        run = Path(self.args.output_dir)
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
