"""What a run has done so far: a file of JSON lines, one record a line with a checksum, appended as it is
done.

The lines of a group are written at once and are on disk when `put` returns; a process that is killed leaves
at worst an unfinished line at the end, which is cut off when the run goes on. One process at a time holds the
file.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ica.llm.model.cache import digest
from ica.record.provenance import plain


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message names the file and what to do."""


class Checkpoint:
    """Records by key, those of earlier runs and those of this one.

    Args:
        path: the file; made if it is not there.

    Raises:
        CheckpointError: another process holds it, it cannot be written, or a line before the last is damaged.
    """

    def __init__(self, path: Path):
        self.path, self.records = path, {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise CheckpointError(f"{path} cannot be written ({error.strerror})") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise CheckpointError(f"{path} is in use: the same run goes on in another process") from error
        self._read()

    def _read(self) -> None:
        data = self.path.read_bytes()
        *lines, rest = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            try:
                content = json.loads(line)
                key, record = content["key"], content["record"]
                whole = content["check"] == digest([key, record])[:16]
            except (ValueError, KeyError, TypeError, RecursionError):
                whole = False
            if not whole:
                os.close(self._file)
                raise CheckpointError(
                    f"{self.path}, line {number} is damaged; remove the file, and the run begins anew"
                )
            self.records[key] = record
        if rest:
            os.ftruncate(self._file, len(data) - len(rest))

    def put(self, records: Mapping[str, dict]) -> None:
        """Keep the records of a group; CheckpointError if they cannot be written, and then none of them
        is."""
        lines = []
        for key, record in records.items():
            record = plain(record)
            content = {"key": key, "check": digest([key, record])[:16], "record": record}
            lines.append(json.dumps(content, sort_keys=True, allow_nan=False) + "\n")
        data, before = "".join(lines).encode(), os.fstat(self._file).st_size
        try:
            if os.write(self._file, data) != len(data):
                raise OSError(0, "written only in part")
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, before)
            raise CheckpointError(f"{self.path} cannot be written ({error.strerror})") from error
        self.records |= {key: plain(record) for key, record in records.items()}

    def close(self) -> None:
        """Let the file go."""
        os.close(self._file)
