"""What a cluster needs before a job is submitted to it: a profile in `workflow/profiles`, the executor's package, its programs.

Snakemake would say that a package is missing only after its own start, and in words of its own.
"""

import shutil
from importlib.util import find_spec
from pathlib import Path

import yaml

PROFILES = Path("workflow/profiles")
PROGRAMS = {"slurm": ("sbatch", "squeue", "scancel")}  # by executor


def names(root: Path) -> list[str]:
    """The clusters that there is a profile for."""
    return sorted(file.parent.name for file in (root / PROFILES).glob("*/config.yaml"))


def executor(root: Path, name: str) -> str:
    """The executor that a profile names; ValueError for no profile of that name, or one that names none."""
    if name not in names(root):
        accepted = ", ".join(names(root)) or f"none, as {PROFILES} holds no profile"
        raise ValueError(f"CLUSTER: unknown profile {name!r}; accepted: {accepted}")
    file = root / PROFILES / name / "config.yaml"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))["executor"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise ValueError(f"CLUSTER: {file} names no executor ({' '.join(str(error).split())})") from error
    return str(found)


def flags(root: Path, name: str) -> tuple[str, ...]:
    """Options of Snakemake that send the jobs to the cluster of this name; none for "".

    Raises:
        ValueError: no such profile, its executor is not installed, or the cluster's programs are not at hand.
    """
    if not name:
        return ()
    kind = executor(root, name)
    package = f"snakemake-executor-plugin-{kind}"
    if kind != "local" and find_spec(package.replace("-", "_")) is None:
        raise ValueError(
            f"CLUSTER={name} needs the package {package}; `.venv/bin/python -m pip install -c constraints.txt {package}` "
            "installs it"
        )
    if missing := [program for program in PROGRAMS.get(kind, ()) if shutil.which(program) is None]:
        raise ValueError(
            f"CLUSTER={name}: {missing[0]} is not on this machine; call it on one from which jobs are submitted"
        )
    return ("--profile", str(PROFILES / name))
