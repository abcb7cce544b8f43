"""`hf-elmo push`: a model folder to the hub."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from .console import counted, in_bytes, note, print_table, say, silence_libraries


def push(
    folder: Annotated[str, typer.Argument(help="Model folder, or a bundled model.")],
    repo: Annotated[str, typer.Argument(help="Repository on the hub, such as user/elmo-mini.")],
    private: Annotated[bool, typer.Option("--private", help="Let only its owners see the repository.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="A branch of the repository. [default: the main one]", show_default=False)
    ] = None,
    commit_message: Annotated[str, typer.Option(help="What to call the commit.")] = "Upload ELMo with hf-elmo",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files and the card, and send nothing.")] = False,
) -> None:
    """Upload a model to the Hugging Face hub, in one commit.

    The folder is checked first, and stays as it is. Code for trust_remote_code=True, and a model card (README.md), are
    added on the hub where the folder has none. Weights that are there in other files (one instead of several, or
    reversed) are deleted in the same commit; other files stay. The token is that of `hf auth login`, or HF_TOKEN. After
    an upload that was cut off, the same command sends what is missing.
    """
    from huggingface_hub.utils import enable_progress_bars, logging

    from ..hub.folders import READS, WRITES, find_folder, load_as_saved
    from ..hub.model_card import CARD_NAME, check_metadata
    from ..hub.upload import check_repo_id, find_secret, upload
    from ..hub.upload_files import files_for_hub, list_folder

    check_repo_id(repo)
    path = find_folder(folder, (READS, WRITES))
    _, left_out = list_folder(path)
    silence_libraries()
    load_as_saved(path)
    files = files_for_hub(path, repo)
    card = next(file for file in files if file.name == CARD_NAME)
    for remark in check_metadata(card.read(), str(path / CARD_NAME) if card.origin == "folder" else CARD_NAME):
        note(remark)
    if left_out:
        note(f"left out: {', '.join(left_out)}")
    size = in_bytes(sum(file.size for file in files))
    if dry_run:
        print_table(["file", "size", "from"], [(file.name, in_bytes(file.size), file.origin) for file in files])
        say("")
        say(card.read().decode())
        if found := find_secret(files):
            note(f"{found}: it will not be sent so. Take it out first.")
        note(f"{counted(len(files), 'file')}, {size} for {repo}; nothing was sent")
        return
    logging.set_verbosity_error()
    if sys.stderr is not None and sys.stderr.isatty():
        enable_progress_bars()
    done = upload(files, repo, private, revision, commit_message)
    for remark in done.remarks:
        note(remark)
    if done.deleted:
        note(f"deleted there, as weights of an earlier upload: {', '.join(done.deleted)}")
    was = f"commit {done.commit[:12]}" if done.is_new else f"all there already, in commit {done.commit[:12]}"
    note(f"{counted(len(files), 'file')}, {size}: {was}")
    say(done.repo_url)
