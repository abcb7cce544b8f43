"""What a model folder becomes on the hub: its files, the code for `trust_remote_code`, and its card."""

from __future__ import annotations

import fnmatch
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from transformers.dynamic_module_utils import get_relative_import_files

from ..model.model_files import read_json_object
from ..model.remote_code import AUTO_MAP, CUSTOM_PIPELINES, code, custom_pipelines
from .model_card import CARD_NAME, make_card

_TOKENIZER_CODE = "tokenization_elmo.ElmoTokenizer"
# What users of a model have no need for: caches, checkpoints (Trainer.push_to_hub leaves these out too), and the state
# of a training. That is pickled, and training_args.bin may even hold the token of who trained.
_LEFT_OUT = (
    ".*",
    "_*",
    "*.part",
    "checkpoint-*",
    "training_args.bin",
    "optimizer.*",
    "scheduler.pt",
    "scaler.pt",
    "rng_state*.pth",
)


@dataclass(frozen=True)
class HubFile:
    """A file as it is to be on the hub.

    Args:
        name: Its path there.
        content: Where it lies, or its content if that lies nowhere.
        origin: Where it comes from, for people.
    """

    name: str
    content: Path | bytes
    origin: str

    @property
    def size(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def files_for_hub(folder: Path, repo: str | None = None) -> list[HubFile]:
    """The files that a model folder is uploaded as, by name; the folder itself stays as it is.

    Where code for `trust_remote_code` or the card is missing in the folder, it is added.

    Args:
        folder: Of a model and its tokenizer, as `save_pretrained` writes it.
        repo: The id of the repository, for the card.

    Raises:
        OSError: if something cannot be read.
    """
    names, _ = list_folder(folder)
    files = {name: HubFile(name, folder / name, "folder") for name in names}
    config = read_json_object(folder / "config.json")
    tokenizer_config = read_json_object(folder / "tokenizer_config.json")
    pipelines = custom_pipelines(config.get("architectures") or ())
    changes = []
    if not _has_code(folder, config, tokenizer_config):
        config |= {"auto_map": dict(AUTO_MAP), "custom_pipelines": pipelines}
        tokenizer_config["auto_map"] = {"AutoTokenizer": [_TOKENIZER_CODE, None]}
        text = json.dumps(tokenizer_config, indent=2, sort_keys=True) + "\n"
        files["tokenizer_config.json"] = HubFile("tokenizer_config.json", text.encode(), "folder, with auto_map added")
        for name, text in code().items():
            files[name] = HubFile(name, text.encode(), "added: code")
        changes.append("with auto_map added")
    elif not pipelines and config.get("custom_pipelines") == CUSTOM_PIPELINES:
        # Earlier versions entered the pipeline of question answerers for every model.
        config["custom_pipelines"] = {}
        changes.append("without the pipeline of question answerers")
    if changes:
        if not config["custom_pipelines"]:
            del config["custom_pipelines"]
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        files["config.json"] = HubFile("config.json", text.encode(), f"folder, {changes[0]}")
    if CARD_NAME not in files:
        card = make_card(folder, name=repo, remote_code=True)
        files[CARD_NAME] = HubFile(CARD_NAME, str(card).encode(), "added: card")
    return [files[name] for name in sorted(files)]


def list_folder(folder: Path) -> tuple[list[str], list[str]]:
    """Paths below a folder, with slashes: of the files for the hub, and of files and folders that are left out.

    Links to files stand for these; links to folders are left out.

    Raises:
        OSError: if something cannot be read.
    """
    names, left_out = [], []

    def stop(error: OSError) -> NoReturn:
        raise error

    # Path.glob would pass over what it may not read.
    for place, folders, files in os.walk(folder, onerror=stop):
        for name in sorted([*folders, *files]):
            path = Path(place, name).relative_to(folder).as_posix()
            is_linked_folder = name in folders and Path(place, name).is_symlink()
            # Other code may import it.
            is_module = name in files and name.startswith("_") and name.endswith(".py")
            is_unneeded = any(fnmatch.fnmatchcase(name, pattern) for pattern in _LEFT_OUT) and not is_module
            if is_linked_folder or is_unneeded:
                left_out.append(path)
            elif name in files:
                names.append(path)
        folders[:] = [name for name in folders if Path(place, name).relative_to(folder).as_posix() not in left_out]
    for name in names:
        with open(folder / name, "rb"):
            pass
    return names, left_out


def _has_code(folder: Path, config: dict, tokenizer_config: dict) -> bool:
    """Whether everything that `auto_map` names, and what that imports, lies in the folder."""
    tokenizer = (tokenizer_config.get("auto_map") or {}).get("AutoTokenizer")
    places = [*(config.get("auto_map") or {}).values(), *(tokenizer if isinstance(tokenizer, list) else [tokenizer])]
    places = [place for place in places if place]
    if "AutoConfig" not in (config.get("auto_map") or {}) or not tokenizer:
        return False
    places += [entry["impl"] for entry in (config.get("custom_pipelines") or {}).values()]
    try:
        for module in {place.partition(".")[0] for place in places}:
            get_relative_import_files(folder / f"{module}.py")
    except OSError:
        return False
    return True
