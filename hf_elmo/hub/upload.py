"""Uploading files to the hub as one commit, with errors that say what to do and never show the token."""

from __future__ import annotations

import json
import re
import traceback
import warnings
from dataclasses import dataclass

from ..version import __version__
from .model_card import CARD_NAME
from .upload_files import HubFile

# Weights as `save_pretrained` names them, whole or in shards.
_WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json")


# As the hub makes tokens, and as OpenSSL and OpenSSH write keys.
_SECRET = re.compile(rb"\bhf_[A-Za-z0-9]{34}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----")


@dataclass(frozen=True)
class Uploaded:
    """What an upload has done.

    Args:
        repo_url: The model's page.
        commit: The commit's hash.
        is_new: Whether it was made now; else all files were there already.
        remarks: What the hub had to say about the card.
        deleted: Weights of an earlier upload, which readers might have taken for these.
    """

    repo_url: str
    commit: str
    is_new: bool
    remarks: list[str]
    deleted: list[str]


def check_repo_id(repo: str) -> None:
    """Checks a repository's name without the hub.

    Raises:
        ValueError: if it is not one.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} is not a name of a repository, such as user/elmo-mini: {error}") from None


def find_secret(files: list[HubFile], token: str | None = None) -> str | None:
    """What in the files must not be seen by others: the given token, another token for the hub, or a private key.

    Args:
        files: Weights among them are not looked through.
        token: The user's own; None: the one that huggingface_hub finds, if there is one.

    Returns:
        A sentence that names the file, without the secret itself; None if there is nothing of the kind.

    Raises:
        OSError: if a file cannot be read.
    """
    from huggingface_hub import get_token

    token = token or get_token()
    for file in files:
        if file.name.endswith(".safetensors"):
            continue
        content = file.read()
        # Shorter ones may be words of a vocabulary.
        if token and len(token) >= 20 and token.encode() in content:
            return f"{file.name} holds your token for the hub"
        if _SECRET.search(content):
            return f"{file.name} holds a token for the hub, or a private key"
    return None


def upload(
    files: list[HubFile],
    repo: str,
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload ELMo",
) -> Uploaded:
    """Uploads files to a model repository on the hub: all of them, in one commit, or none.

    The token is the one that huggingface_hub finds: HF_TOKEN, or that of `hf auth login`. The repository and the branch
    are made if they are missing. After an upload that was cut off, the next one sends only what is missing.

    Other files that are there stay, but for weights (`model.safetensors` beside new shards, or other shards): those are
    deleted in the same commit, for they would be loaded instead of the new ones, or be of no use.

    Args:
        files: The model card among them.
        repo: `"user/name"`; without the user, the token's.
        private: The repository must be seen by its owners alone.
        revision: A branch; None: the main one.
        commit_message: Its first line.

    Raises:
        ValueError: if something about the request is wrong: the token, the name, the card, rights.
        OSError: if the hub cannot be reached, or fails.
    """
    from huggingface_hub import get_token

    check_repo_id(repo)
    token = get_token()
    if token is None:
        raise ValueError("There is no token for the hub: log in with `hf auth login`, or set HF_TOKEN.")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("The token for the hub (of HF_TOKEN, or of `hf auth login`) has characters that none has.")
    if found := find_secret(files, token):
        raise ValueError(f"{found}: nothing was sent. Take it out first.")
    try:
        return _upload(files, repo, token, private, revision, commit_message)
    except Exception as error:
        explained = _explain(error, repo)
        if explained is None:
            raise
        text = str(explained).replace(token, "***")
        shown = "".join(traceback.format_exception(error))
        raise type(explained)(text) from (None if token in shown else error)


def _upload(
    files: list[HubFile], repo: str, token: str, private: bool, revision: str | None, commit_message: str
) -> Uploaded:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard

    api = HfApi(token=token, library_name="hf_elmo", library_version=__version__)
    card = next(file for file in files if file.name == CARD_NAME)
    # Before the repository is made, so that a bad card does not leave an empty one.
    try:
        ModelCard(card.read().decode()).validate()
    except ValueError as error:
        raise ValueError(f"The hub does not take the metadata of {CARD_NAME}: {_messages(error)}") from None
    try:
        url = api.create_repo(repo, private=private or None, exist_ok=True)
    except KeyError:
        # The library takes every conflict for a repository that is there, whose address the hub would tell.
        raise OSError(f"The hub cannot make {repo} now (409). Push again.") from None
    repo = url.repo_id
    if private and not api.model_info(repo).private:
        raise ValueError(f"{repo} is there already, and public: make it private in its settings, then push again.")
    if revision is not None and not revision.startswith("refs/"):
        api.create_branch(repo, branch=revision, exist_ok=True)
    before = api.model_info(repo, revision=revision).sha
    names = {file.name for file in files}
    there = api.list_repo_files(repo, revision=revision)
    deleted = sorted(name for name in there if _WEIGHTS.fullmatch(name) and name not in names)
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=file.content) for file in files
    ]
    operations += [CommitOperationDelete(path_in_repo=name, is_folder=False) for name in deleted]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        commit = api.create_commit(repo, operations, commit_message=commit_message, revision=revision)
    remarks = [" ".join(str(each.message).split()) for each in caught if each.category is UserWarning]
    return Uploaded(str(url), commit.oid, commit.oid != before, remarks, deleted)


def _messages(error: ValueError) -> str:
    """What the hub says about metadata, which is JSON, or text."""
    try:
        return "; ".join(each["message"] for each in json.loads(str(error))["errors"])
    except (ValueError, LookupError, TypeError):
        return " ".join(str(error).split())


def _explain(error: BaseException, repo: str) -> ValueError | OSError | None:
    """What an error of an upload means to its user; None: nothing else than it says itself."""
    from huggingface_hub.constants import ENDPOINT
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    again = "Push again: what has arrived is not sent twice."
    # Threads that upload wrap what goes wrong in errors of their own.
    causes = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    if any(isinstance(each, OfflineModeIsEnabled) for each in causes):
        return OSError("HF_HUB_OFFLINE is set, so the hub is not asked: unset it to push.")
    answered = next((each for each in causes if isinstance(each, HfHubHTTPError)), None)
    if answered is None:
        if any(isinstance(each, HTTPError) for each in causes):
            return OSError(f"The hub at {ENDPOINT} cannot be reached: {_line(causes[-1])}. {again}")
        return OSError(f"The upload to {repo} has failed: {_line(error)}. {again}") if _is_of_xet(error) else None
    status = answered.response.status_code
    said = (answered.server_message or answered.response.headers.get("X-Error-Message") or "").strip().rstrip(".")
    said = f"{status}: {' '.join(said.split())}" if said else str(status)
    if status == 401:
        return ValueError(f"The hub does not accept the token ({said}). Log in with `hf auth login`, or set HF_TOKEN.")
    if status == 403:
        return ValueError(
            f"The token may not write to {repo} ({said}). It needs the permission to write, and the repository must "
            "be yours or your organisation's."
        )
    if status == 404:
        return ValueError(f"The hub does not find {repo}, or the revision ({said}).")
    if status in (409, 412):
        return OSError(f"{repo} is being changed by somebody else ({said}). {again}")
    if status >= 500 or status == 429:
        return OSError(f"The hub has failed ({said}). {again}")
    return ValueError(f"The hub refuses the upload to {repo} ({said}).")


def _is_of_xet(error: BaseException) -> bool:
    """Errors of hf_xet are Python's own, raised from below."""
    return isinstance(error, (RuntimeError, ConnectionError, TimeoutError)) or type(error).__name__.startswith("Xet")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
