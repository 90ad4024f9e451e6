"""Where a result comes from: code, parameters, seeds, versions and hardware; and the JSON that says so."""

import json
import math
import os
import platform
import subprocess
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LICENCE = "CC BY 4.0"
PACKAGE = Path(__file__).resolve().parents[2]  # the checkout, if the package runs from one
PACKAGES = (
    "ica",
    "jaxtyping",
    "matplotlib",
    "numpy",
    "pandas",
    "scipy",
    "seaborn",
    "sympy",
    "torch",
    "transformers",
)
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_CBWR")


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Write `content` to `path` through a temporary file beside it, so that readers never see half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def plain(value, key: str = "value"):
    """Return `value` built of dict, list, str, int, float, bool and None only, as JSON holds it.

    NumPy and torch scalars become Python numbers, tuples become lists. ValueError naming the key (as in
    `parameters.eta`) for NaN, infinities, keys that are not strings, and any other type.
    """
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{key} must be a finite number, got {value}")
        return value
    if isinstance(value, (list, tuple)):
        return [plain(v, f"{key}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, dict):
        if wrong := [k for k in value if not isinstance(k, str)]:
            raise ValueError(f"{key} must have strings as keys, got {wrong[0]!r}")
        return {k: plain(v, f"{key}.{k}" if key != "value" else k) for k, v in value.items()}
    raise ValueError(
        f"{key} must be a number, text, truth value, null, list or dict; got {type(value).__name__}"
    )


def write_json(path: Path, content, compact: bool = False) -> Path:
    """Write `content` as JSON, keys sorted, at once or not at all; ValueError names a key that is no JSON.

    `compact`: without line breaks and spaces, for many numbers.
    """
    layout = {"separators": (",", ":")} if compact else {"indent": 1}
    text = json.dumps(plain(content), sort_keys=True, ensure_ascii=False, allow_nan=False, **layout)
    return write_atomic(path, text + "\n")


def project_root() -> Path | None:
    """The checkout that this package runs from, else the nearest one from the current folder upwards; None without one.

    So a notebook finds the stored results, and names the commit of the code that runs, whatever folder it was started in.
    """
    here = Path.cwd()
    for folder in (PACKAGE, here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "ica").is_dir():
            return folder
    return None


def _git(root: Path, *words: str) -> subprocess.CompletedProcess | None:
    """Git in the folder `root`, whatever repository the environment names (as in a hook); None where it cannot be run."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", *words],
            cwd=root,
            check=False,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=30,
            env=environment | {"LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def git(root: Path | None, *words: str) -> str | None:
    """What git prints in the folder `root`; None unless that is the top of a checkout, without git, or if it fails."""
    if root is None or no_repository(root):
        return None
    done = _git(root, *words)
    return done.stdout.strip() if done and done.returncode == 0 else None


def no_repository(root: Path | None) -> str:
    """Why the folder has no commit of its own to name, in words; empty if it has.

    An archive that was unpacked inside another repository must not take that one's commit for its own.
    """
    if root is None:
        return "the code runs outside a checkout"
    done = _git(root, "rev-parse", "--show-toplevel")
    if done is None:
        return "git is not installed"
    if done.returncode:
        said = done.stderr.strip()
        if "dubious ownership" in said:
            return (
                "the repository belongs to another user, so git does not read it (git config safe.directory)"
            )
        if "not a git repository" in said:
            return "the sources are no git checkout"
        return f"git fails: {(said.splitlines() or ['no message'])[0]}"
    if not os.path.samefile(done.stdout.rstrip("\n"), root):
        return "the sources are no git checkout; the folder lies inside another one"
    if (done := _git(root, "rev-parse", "--verify", "HEAD")) is None or done.returncode:
        return "the repository has no commit yet"
    return ""


def commit() -> str | None:
    """Commit of the project: `ICA_COMMIT` if set, else HEAD of the checkout (see `project_root`)."""
    return os.environ.get("ICA_COMMIT") or git(project_root(), "rev-parse", "--verify", "HEAD")


def dirty() -> bool | None:
    """True if the checkout differs from its commit (untracked files count); None outside git."""
    status = git(project_root(), "status", "--porcelain")
    return None if status is None else bool(status)


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that results rest on; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def hardware() -> dict:
    """CPU model, usable cores, memory in GiB, and the names of the GPUs that torch can use."""
    import torch

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        memory = None
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        if torch.cuda.is_available()
        else []
    )
    return {"cpu": _cpu_model(), "cores": usable, "memory_gib": memory, "gpus": gpus}


def threads() -> dict:
    """Threads that torch uses, and the environment variables that fix the number and order of operations."""
    import torch

    return {"torch": torch.get_num_threads(), **{name: os.environ.get(name) for name in THREAD_VARIABLES}}


def seconds_since(started: datetime) -> float:
    """Seconds from `started` (with a time zone) until now, to the millisecond."""
    return round((datetime.now(UTC) - started).total_seconds(), 3)


def provenance(notebook: str, parameters: dict, seeds: list[int], started: datetime) -> dict:
    """Return all that is needed to make a result again, as JSON types.

    Keys: notebook, profile (`ICA_PROFILE`, else "interactive"), parameters, seeds, versions, commit, no_commit (why
    there is none), dirty, hardware, threads, platform, started (UTC, ISO 8601), seconds (since `started`).
    ValueError if `started` has no time zone or a parameter cannot stand in JSON.
    """
    if started.tzinfo is None:
        raise ValueError(f"started must carry a time zone, got {started.isoformat()}; use datetime.now(UTC)")
    return {
        "notebook": notebook,
        "profile": os.environ.get("ICA_PROFILE", "interactive"),
        "parameters": plain(parameters, "parameters"),
        "seeds": plain(list(seeds), "seeds"),
        "versions": versions(),
        "commit": commit(),
        "no_commit": "" if os.environ.get("ICA_COMMIT") else no_repository(project_root()),
        "dirty": dirty(),
        "hardware": hardware(),
        "threads": threads(),
        "platform": platform.platform(),
        "started": started.astimezone(UTC).isoformat(timespec="seconds"),
        "seconds": seconds_since(started),
    }
