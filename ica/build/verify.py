"""The same again: `make verify` builds the book in a fresh clone with an environment of its own, and holds it against the reference.

`results/reference.json` is what one build found, in short; `--accept` makes it from this build. `--built=build/ci` judges a build that
is there. The report goes to the terminal and to build/verify.json; `--store` keeps it for the page "The same again".
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from ica.build import alike, book, jobs, notebooks, reference, stored
from ica.build.stage import state
from ica.record import claims, ledger
from ica.record.outside import plain_text
from ica.record.provenance import no_repository, write_json

PACKAGES = ("torch", "numpy", "scipy")
# Variables that lead the libraries to other instructions than the processor's best.
SWITCHES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_ENABLE_INSTRUCTIONS",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
)
OUTER = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")  # not for the clone
PLAIN = ("PROFILE=ci", "SET=", "MODEL=", "BBQ=", "SNAKEMAKE_FLAGS=", "CLUSTER=")
LARGEST = 1_000_000  # bytes of the reference


def capability(cpu: str) -> str:
    """Instructions that torch uses here, as AVX2; "unknown" of another processor than this machine's."""
    import torch  # seconds, which no other step needs

    from ica.record.provenance import hardware

    return torch.backends.cpu.get_cpu_capability() if hardware()["cpu"] == cpu else "unknown"


def machine(runs: list[dict]) -> dict[str, str]:
    """What decides the last bits of a build, from the provenance of its runs; of runs that differ, all."""

    def all_of(*values: object) -> str:
        return " / ".join(sorted(set(map(str, values))))

    cpu = all_of(*(run["hardware"]["cpu"] for run in runs))
    return {
        "processor": cpu,
        "architecture": platform.machine(),
        "instructions": capability(cpu),
        "switches": " ".join(f"{name}={os.environ[name]}" for name in SWITCHES if os.environ.get(name)),
        "threads": all_of(*(run["threads"]["torch"] for run in runs)),
        "python": all_of(*(run["versions"]["python"].rpartition(".")[0] for run in runs)),
        **{name: all_of(*(run["versions"][name] for run in runs)) for name in PACKAGES},
    }


def measured(root: Path, out: Path) -> dict:
    """What a build found, as the reference keeps it: machine, commit, `notebooks` that ran to their end, and `claims`.

    Args:
        root: the checkout that was built.
        out: its folder of the profile.

    Raises:
        ValueError: no notebook of the book ran there, or a record is damaged.
    """
    folders = {name: out / "record" / name for name in notebooks.listed(root) if reference.ran(out, name)}
    if not folders:
        raise ValueError(f"{out} holds no notebook that ran to its end; `make book` runs them")
    paths = [path for part in claims.PARTS for path in sorted(root.glob(f"ica/record/registry/{part}/*.yml"))]
    rows = ledger.collect(list(folders.values()), claims.load(paths))
    runs = [json.loads((folder / "run.json").read_text(encoding="utf-8")) for folder in folders.values()]
    if wrong := sorted({run["profile"] for run in runs} - {"ci"}):
        raise ValueError(f"{out} is of profile {wrong[0]!r}; the reference is of profile 'ci'")
    return {
        "machine": machine(runs),
        **{key: state(root)[key] for key in ("commit", "dirty")},
        "notebooks": {name: reference.notebook(folder) for name, folder in folders.items()},
        "claims": reference.claims_of(rows),
    }


def kept(root: Path) -> dict | None:
    """The reference; None where there is none yet. Raises ValueError where it is damaged."""
    path = root / reference.REFERENCE
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"machine", "commit", "notebooks", "claims"} <= found.keys():
            raise ValueError("fields")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{reference.REFERENCE} is damaged ({error}); `git checkout -- results` restores it"
        ) from error
    return found


def accept(root: Path, found: dict) -> Path:
    """Make the build the reference; its file.

    Raises:
        ValueError: a notebook of the book did not run, or the file would be too large; nothing is written then.
    """
    if gone := [name for name in notebooks.listed(root) if name not in found["notebooks"]]:
        raise ValueError(f"--accept takes a whole build; did not run to its end: {', '.join(gone)}")
    if (size := len(json.dumps(found, indent=1).encode())) > LARGEST:
        raise ValueError(f"--accept: the reference would be {size} bytes, of {LARGEST} at most")
    return _listed(root, root / reference.REFERENCE, found)


def store(root: Path, report: dict) -> Path:
    """Keep the report for the page, in the place of that of the same kind of machine; its file.

    Raises:
        ValueError: a run of it is one of the reference itself, which says nothing.
    """
    if not report["again"]:
        raise ValueError(
            "--store: the reference was made from runs of this very build; a build anew says whether they repeat"
        )
    others = [one for one in reference.stored(root) if one["machine"] != report["machine"]]
    return _listed(root, root / reference.STORED, {"records": [*others, report]})


def _listed(root: Path, path: Path, content: dict) -> Path:
    """Write a file of results/ and list it there, if all else is as it was stored."""
    stored.check(root)
    write_json(path, content)
    stored.accept(root / "results")
    return path


def table(report: dict) -> str:
    """The report in words, for a terminal."""
    books, against = report["notebooks"], report["reference"]["machine"]
    other = [
        f"{name} {one or 'none'}, not {against.get(name) or 'none'}"
        for name, one in report["machine"].items()
        if one != against.get(name)
    ]
    lines = [f"{books['ran']} of {books['listed']} notebooks ran to their end", ""]
    lines.append(" " * 10 + "".join(f"{state:>11}" for state in reference.STATES))
    for kind, counts in report["counts"].items():
        lines.append(f"{kind:10}" + "".join(f"{counts[state]:11d}" for state in reference.STATES))
    lines += ["", *report["findings"], *([""] if report["findings"] else [])]
    kind = f"another kind of machine ({'; '.join(other)})" if other else "the same kind of machine"
    lines.append(
        f"Reference: commit {str(report['reference']['commit'])[:8]}, {kind}; verdicts that moved: {len(report['moved'])}"
    )
    return plain_text("\n".join(lines))


def judge(root: Path, built: Path, out: Path, options: argparse.Namespace) -> int:
    """Compare the build of the checkout `built` in `out` with the reference in `root`, say and keep what comes out; the exit status."""
    found, before = measured(built, out), kept(root)
    if before is None and not options.accept:
        raise ValueError(f"{reference.REFERENCE} is not there; `make verify ARGS=--accept` makes it")
    report = reference.compare(
        before or found, found, {name: alike.kind(built, name) for name in notebooks.listed(built)}
    )
    report["fresh"] = built != root
    if before is not None:
        write_json(root / reference.LAST, report)
        print(table(report), flush=True)
    if options.accept:
        print(accept(root, found))
        return 0
    if options.store:
        print(store(root, report))
    return int(bool(report["findings"]))


def _make(clone: Path, calls: Path, options: argparse.Namespace) -> int:
    """The README's `make book` in the clone, language models asked anew; the exit status. Whatever ends this ends what it started."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in OUTER and (not name.startswith("ICA_") or name == "ICA_CACHE")
    }
    words = [*PLAIN, f"JOBS={options.jobs}", f"LIMIT={options.limit}"]
    process = subprocess.Popen(
        ["make", "book", *words],
        cwd=clone,
        env=environment | {"ICA_CALLS": str(calls)},
        start_new_session=True,
    )
    try:
        return process.wait()
    except BaseException:
        jobs.end_tree(psutil.Process(process.pid))
        process.wait()
        raise


def fresh(root: Path, options: argparse.Namespace) -> int:
    """Build a clone of HEAD in a temporary folder and judge that; the exit status.

    Raises:
        ValueError: the folder is no checkout of git, or the clone has no notebook that ran. OSError: git or make is missing.
    """
    if why := no_repository(root):
        raise ValueError(f"make verify builds a clone of the commit, but {why}")
    if state(root)["dirty"]:
        print("What is not committed is left out: the commit is built.", flush=True)
    place = Path(tempfile.mkdtemp(prefix="ica-verify-"))
    try:
        clone = place / "book"
        done = subprocess.run(
            ["git", "clone", "--quiet", str(root), str(clone)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ValueError(f"git clone fails: {done.stderr.strip()}")
        failed = _make(clone, place / "calls", options)
        return judge(root, clone, clone / "build" / "ci", options) or failed
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m ica.build.verify", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--built", default="", help="judge the build in this folder (build/ci) instead of a fresh one"
    )
    parser.add_argument(
        "--accept", action="store_true", help=f"make the build the reference, {reference.REFERENCE}"
    )
    parser.add_argument(
        "--store", action="store_true", help=f"keep the report in {reference.STORED}, for the page"
    )
    parser.add_argument("--jobs", default="2", help="jobs of the fresh build at once")
    parser.add_argument("--limit", default="", help="minutes that a job may take (0: any time)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = _arguments(arguments)
    try:
        if options.accept and options.store:
            raise ValueError("--accept and --store: a build says nothing about itself; accepted: one of them")
        root = book.here()
        book.asked(root, [f"--jobs={options.jobs}", f"--limit={options.limit}"])
        stored.check(root)
        if options.built and not (out := root / options.built).is_dir():
            raise ValueError(
                f"--built: {options.built!r} is no folder here; accepted: the folder of a profile, as build/ci"
            )
        if options.built:  # which no other build may change meanwhile
            return book.locked(root, "make verify", lambda: judge(root, root, out, options))
        jobs.end_by_exception()
        return fresh(root, options)
    except (ValueError, OSError) as error:
        said = jobs.of_system(error) if isinstance(error, OSError) else str(error)
        print(plain_text(said), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; nothing of a build that was not finished is kept.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
