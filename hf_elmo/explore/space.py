"""The demo as a Space of the hub: a folder with everything that the hub needs to run it."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..version import __version__
from ..whole_files import new_folder

# What a model folder is made of; checkpoints hold much else (optimizer states, logs).
_MODEL_FILES = (
    "config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
)

_APP = '''"""The demo of hf_elmo as a Space of the hub. It runs elsewhere, too: python app.py"""

from pathlib import Path

from hf_elmo.explore.demo import build_page, launch, load_explorer

HERE = Path(__file__).parent

if __name__ == "__main__":
    launch(build_page(load_explorer({model}, {tagger})))
'''

_README = """---
title: {title}
emoji: 🧭
colorFrom: blue
colorTo: yellow
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
pinned: false
license: apache-2.0
short_description: See how words move with their sentences
---

# {plain_title}

ELMo gives every word a vector that depends on its whole sentence. Type two sentences, pick a word of each, and see how
near their vectors are in every layer of the model, which words are their neighbours, and what would fit in their place.

Made by `hf-elmo space`. To run it on a machine of your own:

```bash
python -m pip install -r requirements.txt
python app.py
```
"""

# What the hub must store as large files.
_ATTRIBUTES = "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"

# The hub refuses longer ones.
_LONGEST_TITLE = 60


def write_space(
    destination: str | Path,
    model: str | Path | None = None,
    tagger: str | Path | None = None,
    title: str = "ELMo: how a word moves",
    requirement: str | None = None,
) -> list[Path]:
    """Writes a Space: `app.py`, `requirements.txt`, `README.md` with the hub's metadata, and copies of the models.

    Args:
        destination: The folder, which must not exist yet, or be empty.
        model: A model folder, which is copied; None: the bundled model, which comes with the package.
        tagger: The folder of a tagger, which is copied, or None.
        title: The Space's name.
        requirement: How pip gets hf_elmo with its extra `demo`, such as "hf_elmo[demo] @ git+https://...". (The hub
            installs gradio by itself; machines elsewhere do not.) None: this version, from the package index.

    Returns:
        The files, relative to the folder.

    Raises:
        ValueError: if there is something at `destination`, for a title that the hub would refuse, and for a
            requirement of several lines.
        OSError: if it cannot be written. Nothing is left of it then.
    """
    if not title.strip() or len(title) > _LONGEST_TITLE or not title.isprintable():
        raise ValueError(f"A title must be one line of at most {_LONGEST_TITLE} characters, was: {title!r}.")
    if requirement is None:
        requirement = f"hf_elmo[demo]=={__version__}"
    if not requirement.strip() or len(requirement.splitlines()) != 1:
        raise ValueError(f"A requirement must be one line of pip's, was: {requirement!r}.")
    copies = {name: Path(source) for name, source in (("model", model), ("tagger", tagger)) if source is not None}
    with new_folder(destination) as folder:
        calls = {name: f'HERE / "{name}"' if name in copies else "None" for name in ("model", "tagger")}
        # JSON's strings are YAML's, too.
        readme = _README.format(title=json.dumps(title, ensure_ascii=False), plain_title=title, gradio=_gradio())
        texts = {"app.py": _APP.format(**calls), "requirements.txt": requirement + "\n", "README.md": readme}
        if not copies:
            texts["app.py"] = texts["app.py"].replace("from pathlib import Path\n\n", "")
            texts["app.py"] = texts["app.py"].replace("HERE = Path(__file__).parent\n\n", "")
        else:
            texts[".gitattributes"] = _ATTRIBUTES
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        for name, source in copies.items():
            (folder / name).mkdir()
            for file in sorted({file for pattern in _MODEL_FILES for file in source.glob(pattern)}):
                shutil.copyfile(file, folder / name / file.name)
        return sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())


def _gradio() -> str:
    """The version of gradio that the Space is to run with.

    Raises:
        ValueError: if there is none here to go by.
    """
    try:
        return version("gradio")
    except PackageNotFoundError:
        raise ValueError(
            "A Space is written for the version of gradio that is installed, but none is: install the extra, as in "
            'python -m pip install -e ".[demo]".'
        ) from None
