"""Answers of a model kept on disk, so that a rerun costs nothing and a killed run goes on where it was.

A folder of files of JSON lines, one answer a line with a checksum, and one file for each process that writes. Against one
database file this needs no locks, so it also holds on the network disks of a cluster; no two processes ever write the same
file; a process killed at any moment leaves at worst one unfinished line, at the end of its own file. The key is a hash over
everything that determines the answer; prompts themselves are not stored. A damaged line, a file that cannot be read and an
answer that does not fit what was asked are named in a warning, and the call is computed again.

The folder is `calls` in the cache, or what the variable `ICA_CALLS` names: an empty one, and every answer is computed anew.
"""

import hashlib
import json
import os
import secrets
import warnings
from collections.abc import Callable
from pathlib import Path

from ica.llm.model import assets
from ica.llm.model.assets import line as one_line
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
    """Where the answers of a model are kept, by its hash."""
    given = os.environ.get("ICA_CALLS")
    return (Path(given).expanduser() if given else assets.cache_folder() / "calls") / model_hash[:16]


class CallCache:
    """Answers by key, those of all earlier runs and those of this one.

    Answers that other processes write after this one began are not seen: they may be computed twice, with the same result.

    Args:
        folder: where the files are; made with the first answer.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.damaged: list[str] = []
        self._answers: dict[str, list[str]] = {}  # mostly one; another where a file was tampered with
        self._file: tuple[int, int, Path] | None = None
        try:
            paths = sorted(path for path in self.folder.iterdir() if path.suffix == ".jsonl")
        except FileNotFoundError:
            paths = []
        except OSError as error:
            paths = []
            self._warn(f"{self.folder} cannot be read ({error.strerror})")
        for path in paths:
            self._read(path)

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str, fits: Callable[[object], bool] = lambda answer: True):
        """The answer kept under this key, as JSON types, if it fits; None if there is none."""
        kept = self._answers.get(key, [])
        found = next((answer for answer in map(json.loads, kept) if fits(answer)), None)
        if kept and found is None:
            self._warn(f"the answer {key[:16]} in {self.folder} is of another shape than what was asked")
        return found

    def put(self, key: str, answer) -> None:
        """Keep an answer; it is on disk when this returns.

        Raises:
            CacheError: it could not be written (a full disk, say); answers before it stay.
            ValueError: it cannot stand in JSON.
        """
        kept = _canonical(answer)
        line = _canonical({"key": key, "check": _check(key, kept), "answer": answer}) + "\n"
        try:
            handle, path = self._own()
        except OSError as error:
            raise CacheError(
                f"{self.folder} cannot be written ({error.strerror}); set ICA_CALLS to a folder of your own"
            ) from error
        before = os.fstat(handle).st_size
        try:
            data = line.encode("utf-8", "surrogatepass")
            if os.write(handle, data) != len(data):
                raise OSError("the line was only written in part")
        except OSError as error:
            os.ftruncate(handle, before)
            raise CacheError(f"the answer could not be written to {path} ({error})") from error
        self._hold(key, kept)

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

    def _hold(self, key: str, kept: str) -> None:
        held = self._answers.setdefault(key, [])
        if kept not in held:
            held.append(kept)

    def _warn(self, what: str) -> None:
        self.damaged.append(what)
        warnings.warn(f"{one_line(what, 500)}; what it may hold will be computed again", stacklevel=4)

    def _read(self, path: Path) -> None:
        try:
            if not path.is_file():
                raise OSError(0, "it is no file")
            data = path.read_bytes()
        except OSError as error:
            self._warn(f"{path} cannot be read ({error.strerror})")
            return
        *lines, _ = data.split(b"\n")  # after the last end of line: nothing, or an unfinished line
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
                key, kept = content["key"], _canonical(content["answer"])
                whole = isinstance(key, str) and content["check"] == _check(key, kept)
            except (ValueError, KeyError, TypeError, RecursionError):
                whole = False
            if whole:
                self._hold(key, kept)
            else:
                self._warn(f"{path}, line {number} is damaged")


def _check(key: str, kept: str) -> str:
    return hashlib.sha256(f"{key} {kept}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
