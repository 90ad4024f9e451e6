"""What a model's name means, which files of a model folder are read, and the hash over exactly these.

Of a Hugging Face folder these are read: the *.json, *.jinja, *.txt and *.model files directly in it, and its weights, which are
`model.safetensors`, or the plain *.safetensors names that `model.safetensors.index.json` gives. Pickles, code, subfolders and
adapters never are. A file may be a link to one in the folder, or to the blobs of the Hugging Face cache that the folder
belongs to, and nowhere else. Nothing heavy is imported, so that a build can ask before anything runs.
"""

import difflib
import hashlib
import json
import re
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ica.llm.model import assets
from ica.llm.model.assets import line

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TEXTS = ("*.json", "*.jinja", "*.txt", "*.model")
LONGEST = 1 << 28  # bytes of a file that holds no weights
PICKLED = ("bin", "pt", "pth", "ckpt")
# Fields of a configuration with which transformers would run code or open files that are not the folder's.
REFUSED = (
    "quantization_config",
    "compression_config",
    "transformers_weights",
    "kernel_config",
    "use_kernels",
    "fusion_config",
    "distributed_config",
)
IMPLEMENTATIONS = {
    "attn_implementation": ("eager", "sdpa"),
    "experts_implementation": ("eager", "batched_mm", "grouped_mm"),
}
LABELS = 10_000


class ModelError(ValueError):
    """A model cannot be found, read or used as asked; the one-line message names it, and what is accepted."""


def shown(name: str) -> str:
    """A name as one printable line: what cannot be printed stands as an escape."""
    return name if name.isprintable() else repr(name)[1:-1]


def find(source: str) -> Path | None:
    """The GGUF file or folder that a name means; None if it is of the asset table or, by its form, a hub id.

    Raises:
        ModelError: it is none of these, or a folder that cannot be read (as `files` says).
    """
    names = [name for name, asset in assets.table().items() if asset.kind == "model"]
    if source in names:
        return None
    if any("\ud800" <= letter <= "\udfff" for letter in source):
        raise ModelError(
            f"model '{shown(source)}': the path has bytes that are no UTF-8; rename the file or folder"
        )
    path = Path(source)
    try:
        path = path.expanduser()
        mode = path.stat().st_mode
    except PermissionError as error:
        raise ModelError(f"model {shown(source)} cannot be read ({error.strerror})") from error
    except (OSError, ValueError, RuntimeError):  # of names that no path can have, too
        mode = 0
    if stat.S_ISDIR(mode) and source:
        files(path)
        return path
    if stat.S_ISREG(mode) and path.suffix == ".gguf":
        return path
    if stat.S_ISREG(mode):
        raise ModelError(f"model {shown(source)}: a file must be a GGUF file, and its name end with .gguf")
    if HUB_ID.fullmatch(source) and path.suffix != ".gguf" and not mode:
        return None
    near = difflib.get_close_matches(source, names, 1)
    raise ModelError(
        f"model '{shown(source)}' is unknown; {f'did you mean {near[0]}? ' if near else ''}accepted are {', '.join(names)}, the path "
        "of a .gguf file or of a Hugging Face folder, and a hub id (owner/name)"
    )


def files(folder: Path) -> list[Path]:
    """The files of a folder that are read, in the order of their names.

    Raises:
        ModelError: there are no safetensors, only pickled weights say; a file that is no plain file of the folder; a
            configuration that is none, or asks for what is not given here.
    """
    try:
        weights = _weights(folder)
        found = {path for pattern in TEXTS for path in folder.glob(pattern) if path.name != INDEX}
        found |= {*weights, *([folder / INDEX] if weights != [folder / WEIGHTS] else [])}
        for path in found:
            _plain(folder, path)
        _configured(folder, [path.name for path in found])
    except (OSError, RuntimeError) as error:  # the latter of links in a circle
        reason = (
            f"{shown(Path(error.filename).name)}: {error.strerror}"
            if getattr(error, "filename", "")
            else str(error)
        )
        raise ModelError(f"model folder {shown(str(folder))} cannot be read ({line(reason)})") from error
    return sorted(found)


def hashed(path: Path) -> str:
    """SHA-256 of a file; ModelError if it cannot be read."""
    try:
        return assets.sha256(path)
    except OSError as error:
        raise ModelError(f"model file {shown(str(path))} cannot be read ({error.strerror})") from error


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 over the names and SHA-256s of files, in the order of their names."""
    lines = "".join(f"{hashed(path)}  {path.name}\n" for path in sorted(paths))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and SHA-256s of all files of a folder that are read; ModelError as `files`."""
    return digest(files(folder))


@contextmanager
def laid_out(paths: Sequence[Path], name: str) -> Iterator[Path]:
    """A folder that holds links to these files and nothing else.

    Raises:
        ModelError: at the end, if a file is no longer as it was at the beginning.
    """
    before = {path: _state(path) for path in paths}
    try:
        made = tempfile.TemporaryDirectory(prefix="ica-model-", ignore_cleanup_errors=True)
    except OSError as error:
        raise ModelError(
            f"model {shown(name)}: there is no place for temporary files ({error.strerror}); set TMPDIR to a folder of your own"
        ) from error
    with made as folder:
        for path in paths:
            (Path(folder) / path.name).symlink_to(path.resolve())
        yield Path(folder)
    if changed := [path.name for path in paths if _state(path) != before[path]]:
        raise ModelError(f"model {shown(name)}: {shown(changed[0])} changed while it was read; try again")


def _state(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _weights(folder: Path) -> list[Path]:
    """The files that hold the weights of a folder: one, or those that its index names."""
    begun = f"model folder {shown(str(folder))}"
    if (folder / WEIGHTS).exists():
        return [folder / WEIGHTS]
    if (folder / INDEX).exists():
        _plain(folder, folder / INDEX)
        names = _json(folder / INDEX).get("weight_map")
        if (
            not isinstance(names, dict)
            or not names
            or not all(isinstance(name, str) for name in names.values())
        ):
            raise ModelError(f"{begun}: {INDEX} is damaged (its weight_map must give names of files)")
        for name in sorted(set(names.values())):
            if not name.endswith(".safetensors") or Path(name).name != name or "\\" in name:
                raise ModelError(
                    f"{begun}: {INDEX} names '{shown(name)}'; accepted are .safetensors files that lie directly in the folder"
                )
            if not (folder / name).exists():
                raise ModelError(
                    f"{begun} is damaged or incomplete ({shown(name)} is missing, which {INDEX} names)"
                )
        return [folder / name for name in set(names.values())]
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    pickled = sorted(path.name for end in PICKLED for path in folder.glob(f"*.{end}"))
    wrong = "no weights"
    if others:
        wrong = f"no weights of the names that are read, but {shown(others[0])}"
    elif pickled:
        wrong = f"only pickled weights ({shown(pickled[0])}), which are not opened"
    raise ModelError(f"{begun} has {wrong}; accepted are {WEIGHTS}, or .safetensors files and {INDEX}")


def _plain(folder: Path, path: Path) -> None:
    """ModelError unless the path is a file of the folder, or of the blobs of the hub cache that the folder is in."""
    name, home, target = shown(path.name), folder.resolve(), path.resolve()
    begun = f"model folder {shown(str(folder))}: {name}"
    homes = [home, *([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])]
    if target.parent not in homes:
        raise ModelError(
            f"{begun} is a link to a file outside the folder; accepted are the folder's own files"
        )
    if not path.is_file():
        raise ModelError(f"{begun} is no file")
    if path.suffix != ".safetensors" and path.stat().st_size > LONGEST:
        raise ModelError(f"{begun} has {path.stat().st_size} bytes; accepted are at most {LONGEST}")


def _json(path: Path) -> dict:
    """A JSON object; ModelError if the file holds none."""
    begun = f"model folder {shown(str(path.parent))} is damaged or incomplete ({path.name}"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{begun}: {line(str(error))})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{begun} must be a JSON object)")
    return found


def _configured(folder: Path, names: Sequence[str]) -> None:
    """ModelError if a folder's configuration is none, or asks for what is not given here."""
    begun = f"model folder {shown(str(folder))}"
    if "adapter_config.json" in names:
        raise ModelError(
            f"{begun} holds an adapter, which says nothing without another model; merge the two first"
        )
    if "config.json" not in names:
        raise ModelError(f"{begun} is damaged or incomplete (config.json is missing)")
    if asks := _asks(_json(folder / "config.json")):
        raise ModelError(f"{begun}: its config.json asks for {asks}")
    if "tokenizer_config.json" in names and _json(folder / "tokenizer_config.json").get("init_inputs"):
        raise ModelError(f"{begun}: its tokenizer_config.json has init_inputs; accepted are named settings")


def _asks(config: dict) -> str:
    """What a configuration asks for that is not given here; empty if there is nothing."""
    inner = [config]
    while inner:
        for key, value in inner.pop().items():
            if key in REFUSED and value not in (None, False):
                method = value.get("quant_method") if isinstance(value, dict) else value
                return f"{key} ({line(str(method), 60)}); accepted are plain weights that transformers reads by itself"
            accepted = IMPLEMENTATIONS.get(key.removeprefix("_").removesuffix("_internal"))
            asked = list(value.values()) if isinstance(value, dict) else [value]
            if wrong := [one for one in asked if accepted and one is not None and one not in accepted]:
                return f"{key} '{line(str(wrong[0]), 60)}'; accepted are {', '.join(accepted)}"
            if key == "num_labels" and isinstance(value, (int, float)) and value > LABELS:
                return f"num_labels {value}; accepted are at most {LABELS}"
            if isinstance(value, dict):
                inner.append(value)
    return ""


def layers(folder: Path) -> int:
    """The largest number of layers that the configuration of a folder asks for; 0 if it says nothing."""
    found, inner = [0], [_json(folder / "config.json")]
    while inner:
        for key, value in inner.pop().items():
            if isinstance(value, dict):
                inner.append(value)
            elif isinstance(value, int) and re.fullmatch(r"(num|n)_(\w+_)?(layers?|blocks?)", key):
                found.append(value)
    return max(found)
