"""The folder of an embedded corpus: shards that are whole or not there, what is known of each, and the manifest.

    OUT/README.md         a dataset card, by which `datasets.load_dataset(OUT)` finds the shards
    OUT/manifest.json     options, versions, the model's fingerprint, and each shard with its checksum; the last to come
    OUT/bad_rows.jsonl    the rows that could not be read, if there are any
    OUT/data/00000.parquet ...
    OUT/_unfinished/      while it is not complete: plan.json, and a record of each shard that is

A shard counts as finished when its record is there, which is written after it. So a process may be killed at any time.
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...whole_files import new_file
from ..embedder import sha256

MANIFEST, BAD_ROWS, CARD, DATA, UNFINISHED = "manifest.json", "bad_rows.jsonl", "README.md", "data", "_unfinished"

_Record = dict[str, Any]

_CARD = """\
---
configs:
- config_name: default
  data_files: "data/*.parquet"
---

# Vectors of an ELMo

Written by `hf-elmo embed-corpus` (hf_elmo {version}); `manifest.json` has the options, the model's fingerprint and the
checksum of each file.
"""


class OutputFolder:
    """The folder that one or several processes fill with shards.

    Args:
        path: The folder; it is made if it is not there.
        plan: Everything that decides about the content, as JSON has it.
        suffix: That of the shards' names.

    Raises:
        ValueError: if the folder holds anything else, or was begun with another plan.
        OSError: if it cannot be written.
    """

    def __init__(self, path: str | Path, plan: dict[str, Any], suffix: str):
        self.path, self.suffix = Path(path), suffix
        self.plan: dict[str, Any] = json.loads(json.dumps(plan))
        self.data, self.unfinished = self.path / DATA, self.path / UNFINISHED

    def begin(self) -> dict[str, Any] | None:
        """Makes the folder, or checks that it was begun with the same plan; the manifest if it is complete."""
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file: name a folder.")
        manifest = self._read(self.path / MANIFEST)
        if manifest is not None:
            self._check_plan({name: manifest.get(name) for name in self.plan})
            self._check_files(manifest["shards"])
            shutil.rmtree(self.unfinished, ignore_errors=True)
            return manifest
        if self.path.is_dir() and not self.unfinished.is_dir() and any(self.path.iterdir()):
            # Another process may have begun it, or completed it, meanwhile.
            if (self.path / MANIFEST).exists() or self.unfinished.is_dir():
                return self.begin()
            raise ValueError(f"{self.path} is not empty, and no corpus was being embedded there: name another folder.")
        with self._until_another_process_completes_it():
            self.unfinished.mkdir(parents=True, exist_ok=True)
            plan = self.unfinished / "plan.json"
            if not plan.exists():
                # With several processes the first one writes it, and the others find it.
                with suppress(FileExistsError):
                    self._write(plan, self.plan, overwrite=False)
            if (begun := self._read(plan)) is None:
                raise FileNotFoundError(errno.ENOENT, "The record of what was begun has vanished", str(plan))
            self._check_plan(begun)
            self.data.mkdir(exist_ok=True)
            return None
        return self.begin()

    @contextmanager
    def _until_another_process_completes_it(self) -> Iterator[None]:
        """For work in the folder of what is unfinished, which that process deletes; ends early where it does."""
        try:
            yield
        except FileNotFoundError:
            if not self.is_complete():
                raise

    @contextmanager
    def only_process(self, number: int) -> Iterator[None]:
        """While no other process of this number writes here, or once the folder is complete.

        Raises:
            ValueError: if one does.
        """
        lock = FileLock(self.unfinished / f"process-{number}.lock")
        try:
            with self._until_another_process_completes_it():
                lock.acquire(blocking=False)
        except Timeout:
            raise ValueError(
                f"Another process is embedding into {self.path}: wait for it, or name another folder. (Processes that "
                "share the work are to be started by torchrun, or with a number each.)"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def shard_path(self, shard: int) -> Path:
        """Where a shard is, or will be."""
        return self.data / f"{shard:05}{self.suffix}"

    def record(self, shard: int) -> _Record | None:
        """What is known of a shard; None if it is not finished."""
        return self._read(self._record_path(shard)) if self.shard_path(shard).exists() else None

    def check(self, shard: int, record: _Record) -> None:
        """Checks that a finished shard is what was written.

        Raises:
            ValueError: if not.
        """
        path = self.shard_path(shard)
        try:
            found = sha256(path)
        except OSError as error:
            raise ValueError(f"{path} cannot be read ({error.strerror}): {self._remedy}") from None
        if found != record["sha256"]:
            raise ValueError(
                f"{path} is not what was written: its SHA-256 is {found}, expected {record['sha256']}. {self._remedy}"
            )

    _remedy = "Delete it and start the same command again, which makes it anew and keeps all others."

    def finish(self, shard: int, record: _Record) -> None:
        """Records that a shard is finished, which its file must be."""
        path = self.shard_path(shard)
        whole = {"file": f"{DATA}/{path.name}", "bytes": path.stat().st_size, "sha256": sha256(path), **record}
        self._write(self._record_path(shard), whole)

    def num_finished(self) -> int:
        """How many shards are finished."""
        return sum(1 for _ in self.unfinished.glob("shard-*.json"))

    def is_complete(self) -> bool:
        """Whether this process or another one has completed the folder; then there are no records any more."""
        return (self.path / MANIFEST).exists()

    def complete(self, num_shards: int) -> dict[str, Any] | None:
        """Completes the folder, if all shards are finished; the manifest, or None if some are not yet."""
        if not self.is_complete():
            with self._until_another_process_completes_it(), FileLock(self.unfinished / "completing.lock"):
                if not self.is_complete() and not self._complete(num_shards):
                    return None
        # Another process that came here meanwhile may have made it again for its lock.
        shutil.rmtree(self.unfinished, ignore_errors=True)
        return self._read(self.path / MANIFEST)

    def _complete(self, num_shards: int) -> bool:
        records = []
        for shard in range(num_shards):
            record = self.record(shard)
            if record is None:
                return False
            records.append(record)
        if self.num_finished() > num_shards:
            raise ValueError(
                f"{self.path} has more shards than the input has rows for: the input has become shorter since the run "
                "began. Embed it into another folder."
            )
        self._check_files(records)
        bad = [row for record in records for row in record.pop("bad_rows")]
        totals = {
            name: sum(record[name] for record in records) for name in ("rows", "words", "truncated_words", "bytes")
        }
        manifest = {**self.plan, "totals": {**totals, "bad_rows": len(bad)}, "shards": records}
        if bad:
            with new_file(self.path / BAD_ROWS) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in bad), encoding="utf-8")
        if self.suffix == ".parquet":
            with new_file(self.path / CARD) as temporary:
                temporary.write_text(_CARD.format(version=self.plan["versions"]["hf_elmo"]), encoding="utf-8")
        # What processes that were killed have left, under names that nobody will write again.
        for leftover in self.data.glob(".*.part"):
            leftover.unlink(missing_ok=True)
        self._write(self.path / MANIFEST, manifest)
        return True

    def _check_files(self, records: Sequence[_Record]) -> None:
        for record in records:
            path = self.path / record["file"]
            if not path.is_file() or path.stat().st_size != record["bytes"]:
                found = f"{path.stat().st_size:,} bytes" if path.is_file() else "not there"
                raise ValueError(f"{path} is {found}, expected {record['bytes']:,} bytes. {self._remedy}")

    def _check_plan(self, before: dict[str, Any]) -> None:
        changed = list(_differences(before, self.plan))
        if changed:
            raise ValueError(
                f"{self.path} was begun otherwise, and would not be of one piece: {'; '.join(changed)}. Start as "
                "before, or name another folder."
            )

    def _record_path(self, shard: int) -> Path:
        return self.unfinished / f"shard-{shard:05}.json"

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise ValueError(f"{path} is damaged ({error}): delete it, or name another folder.") from None

    def _write(self, path: Path, content: dict[str, Any], overwrite: bool = True) -> None:
        with new_file(path, overwrite=overwrite) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*now, *(key for key in before if key not in now)]:
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        yield f"{name} was {json.dumps(before):.80}, now {json.dumps(now):.80}"
