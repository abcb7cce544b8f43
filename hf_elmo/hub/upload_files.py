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
from ..model.remote_code import CUSTOM_PIPELINES, auto_map, code, custom_pipelines
from .folders import READS, WRITES
from .model_card import CARD_NAME, make_card

# Of each kind of model: where the class of its tokenizer is.
_TOKENIZER_CODE = {
    READS: "tokenization_elmo.ElmoTokenizer",
    WRITES: "tokenization_encoder_decoder_elmo.ElmoEncoderDecoderTokenizer",
}
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
    "runs",
    "wandb",
    "mlruns",
    "lightning_logs",
)
# Names, in lower case, of files and folders that mostly hold keys or passwords.
_KEYS = (
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.ppk",
    "*.kdbx",
    "*.env",
    "token",
    "token.txt",
    "token.json",
    "tokens.txt",
    "tokens.json",
    "*.token",
    "*_token",
    "*_token.txt",
    "secret",
    "secret.*",
    "secrets",
    "secrets.*",
    "*.secret",
    "credential*",
    "password*",
    "passwd",
    "netrc",
    "stored_tokens",
    "service_account*.json",
)
# Without these a folder on the hub is of no use.
_NEEDED = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
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
    architectures = config.get("architectures") or ()
    pipelines = custom_pipelines(architectures)
    changes = []
    if not _has_code(folder, config, tokenizer_config):
        tokenizer = _TOKENIZER_CODE[config["model_type"]]
        config |= {"auto_map": auto_map(architectures), "custom_pipelines": pipelines}
        tokenizer_config["auto_map"] = {"AutoTokenizer": [tokenizer, None]}
        text = json.dumps(tokenizer_config, indent=2, sort_keys=True) + "\n"
        files["tokenizer_config.json"] = HubFile("tokenizer_config.json", text.encode(), "folder, with auto_map added")
        for name, text in code(f"{tokenizer.partition('.')[0]}.py").items():
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

    Left out are caches, checkpoints and logs of trainings; what is named as keys and passwords are; links to folders;
    and links to files outside of the folder, but for those of the hub's own cache. Links to files of the folder stand
    for these.

    Raises:
        ValueError: if a file that a model needs is a link to one outside of the folder.
        OSError: if something cannot be read.
    """
    names, left_out = [], []

    def stop(error: OSError) -> NoReturn:
        raise error

    # Path.glob would pass over what it may not read.
    for place, folders, files in os.walk(folder, onerror=stop):
        for name in sorted([*folders, *files]):
            path = Path(place, name).relative_to(folder).as_posix()
            if _is_left_out(folder, Path(place, name), is_file=name in files):
                left_out.append(path)
            elif name in files:
                names.append(path)
        folders[:] = [name for name in folders if Path(place, name).relative_to(folder).as_posix() not in left_out]
    for path in left_out:
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in _NEEDED):
            raise ValueError(
                f"{folder / path} is a link to {os.path.realpath(folder / path)}, outside of the folder: what lies "
                "there is not pushed. Put the file itself into the folder."
            )
    for name in names:
        with open(folder / name, "rb"):
            pass
    return names, left_out


def _is_left_out(folder: Path, path: Path, is_file: bool) -> bool:
    # Other code may import it.
    is_module = is_file and path.name.startswith("_") and path.name.endswith(".py")
    if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in _LEFT_OUT) and not is_module:
        return True
    if any(fnmatch.fnmatchcase(path.name.lower(), pattern) for pattern in _KEYS):
        return True
    if not is_file:
        return path.is_symlink()
    # A pipe or a device would be read for ever.
    return not path.is_file() or not _belongs_to(folder, path.resolve())


def _belongs_to(folder: Path, target: Path) -> bool:
    """Whether a file lies in the folder, or in the hub's cache where the folder is a snapshot there."""
    folder = folder.resolve()
    is_snapshot = folder.parent.name == "snapshots"
    return target.is_relative_to(folder) or (is_snapshot and target.is_relative_to(folder.parents[1] / "blobs"))


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
