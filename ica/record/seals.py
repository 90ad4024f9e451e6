"""Whether files are as they were written: a seal beside them holds the SHA-256 of each.

A result of several files is complete or it is none. Its maker writes the files, then the seal; whoever reads them asks `faults` first.
A seal says nothing about who wrote the files, only that none is missing, cut short or changed since.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from ica.record.provenance import write_json


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(seal: Path, files: Iterable[Path], about: Mapping | None = None) -> Path:
    """Seal the files, which lie in the folder of `seal` or below it; the seal's path.

    Args:
        seal: the JSON file to write, at once or not at all.
        files: every file that belongs to the result.
        about: what the result was made with (settings, digest of the code), to compare with later; JSON types.

    Raises:
        ValueError: a file that lies elsewhere. OSError: one that cannot be read.
    """
    found = {path.relative_to(seal.parent).as_posix(): sha256(path) for path in sorted(files)}
    return write_json(seal, {"about": dict(about or {}), "files": found})


def about(seal: Path) -> dict:
    """What the sealed result was made with; empty where the seal is missing or damaged."""
    content = _read(seal)
    return content["about"] if isinstance(content, dict) else {}


def names(seal: Path) -> set[Path]:
    """The sealed files; empty where the seal is missing or damaged."""
    content = _read(seal)
    return {seal.parent / name for name in content["files"]} if isinstance(content, dict) else set()


def faults(seal: Path) -> list[str]:
    """What is wrong with the sealed files, one phrase each, naming the file; empty if all are there as they were written."""
    content = _read(seal)
    if isinstance(content, str):
        return [content]
    found = []
    for name, digest in content["files"].items():
        path = seal.parent / name
        try:
            if sha256(path) != digest:
                found.append(f"{path} is damaged (it is not as it was written)")
        except FileNotFoundError:
            found.append(f"{path} is missing")
        except OSError as error:
            found.append(f"{path} cannot be read ({error.strerror})")
    return found


def _read(seal: Path) -> dict | str:
    """The content of a seal, or what is wrong with it."""
    try:
        content = json.loads(seal.read_text(encoding="utf-8"))
        names, digests = list(content["files"]), list(content["files"].values())
        whole = (
            bool(names) and isinstance(content["about"], dict) and all(isinstance(d, str) for d in digests)
        )
        if not whole or any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
            raise ValueError("fields")
    except FileNotFoundError:
        return f"{seal} is missing"
    except OSError as error:
        return f"{seal} cannot be read ({error.strerror})"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{seal} is damaged (it is no seal)"
    return content
