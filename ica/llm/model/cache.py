"""Answers of a model kept on disk, so that a rerun costs nothing and a killed run goes on where it was.

A folder of files of JSON lines, one answer a line with a checksum, and one file for each process that writes. Against one
database file this needs no locks, so it also holds on the network disks of a cluster; no two processes ever write the same
file; a process killed at any moment leaves at worst one unfinished line, at the end of its own file. The key is a hash over
everything that determines the answer; prompts themselves are not stored. A damaged line is named in a warning and its
call computed again.
"""

import hashlib
import json
import os
import secrets
import warnings
from pathlib import Path

from ica.llm.model import assets
from ica.record.provenance import plain


class CacheError(ValueError):
    """An answer cannot be written; the message names the file."""


def _canonical(content) -> str:
    return json.dumps(
        plain(content), sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def digest(content) -> str:
    """SHA-256 of the canonical JSON of `content`: keys sorted, no spaces, numbers exact."""
    return hashlib.sha256(_canonical(content).encode("utf-8", "surrogatepass")).hexdigest()


def call_key(model_hash: str, kind: str, settings: dict, prompts: list) -> str:
    """Key of a call: the model, what is asked of it, under which settings, and the hash of its prompts."""
    return digest({"model": model_hash, "kind": kind, "settings": settings, "prompts": digest(prompts)})


def model_folder(model_hash: str) -> Path:
    """Where the answers of a model are kept: in the cache, by its hash."""
    return assets.cache_folder() / "calls" / model_hash[:16]


class CallCache:
    """Answers by key, those of all earlier runs and those of this one.

    Answers that other processes write after this one began are not seen: they may be computed twice, with the same result.

    Args:
        folder: where the files are; made with the first answer.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.damaged: list[str] = []
        self._answers: dict[str, str] = {}
        self._file: tuple[int, int, Path] | None = None
        for path in sorted(self.folder.glob("*.jsonl")):
            self._read(path)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str):
        """The answer kept under this key, as JSON types; None if there is none."""
        kept = self._answers.get(key)
        return None if kept is None else json.loads(kept)

    def put(self, key: str, answer) -> None:
        """Keep an answer; it is on disk when this returns.

        Raises:
            CacheError: it could not be written (a full disk, say); answers before it stay.
            ValueError: it cannot stand in JSON.
        """
        kept = _canonical(answer)
        line = _canonical({"key": key, "check": _check(key, kept), "answer": answer}) + "\n"
        handle, path = self._own()
        before = os.fstat(handle).st_size
        try:
            data = line.encode("utf-8", "surrogatepass")
            if os.write(handle, data) != len(data):
                raise OSError("the line was only written in part")
        except OSError as error:
            os.ftruncate(handle, before)
            raise CacheError(f"the answer could not be written to {path} ({error})") from error
        self._answers.setdefault(key, kept)

    def close(self) -> None:
        """Close the file; the next `put` begins another."""
        if self._file and self._file[0] == os.getpid():
            os.close(self._file[1])
        self._file = None

    def _own(self) -> tuple[int, Path]:
        """Handle and path of this process's file; a forked child begins its own."""
        if self._file is None or self._file[0] != os.getpid():
            self.folder.mkdir(parents=True, exist_ok=True)
            path = self.folder / f"{os.getpid()}-{secrets.token_hex(6)}.jsonl"
            self._file = (
                os.getpid(),
                os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644),
                path,
            )
        return self._file[1:]

    def _read(self, path: Path) -> None:
        *lines, _ = path.read_bytes().split(
            b"\n"
        )  # after the last end of line: nothing, or an unfinished line
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
                kept = _canonical(content["answer"])
                whole = content["check"] == _check(content["key"], kept)
            except (ValueError, KeyError, TypeError):
                whole = False
            if whole:
                self._answers.setdefault(content["key"], kept)
            else:
                self.damaged.append(f"{path}, line {number}")
                warnings.warn(f"{self.damaged[-1]} is damaged; its call will be computed again", stacklevel=3)


def _check(key: str, kept: str) -> str:
    return hashlib.sha256(f"{key} {kept}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
