"""Are the tests sharp? `make mutants` changes one thing at a time in the code that the claims stand on; a test must fail each time.

mutmut makes the changes and runs the tests that reach the changed function, in a copy of the tracked files in `build/mutants`;
`[tool.mutmut]` of pyproject.toml names modules and tests. A run that was stopped goes on. What no test noticed is *equivalent*
(it cannot be noticed; `tests/mutants.yml` says why) or a gap.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import yaml

from ica.build import jobs, stored
from ica.record.provenance import commit, dirty, hardware, project_root, write_json

MODULE = "ica.build.mutants"
STORED, REASONS = "results/mutants.json", "tests/mutants.yml"
LEAST = 0.85  # of the mutants that must be noticed
NOTICED, SURVIVED = "noticed", "survived"
# Exit codes of a mutant's tests, as mutmut keeps them: failed, an error of pytest's own, too slow or caught in a loop.
CODES = dict.fromkeys((1, 3, 24, 36, 152, 255, -24), NOTICED) | dict.fromkeys((0, 5, 33), SURVIVED)


class Unfinished(ValueError):
    """Some mutants were not tried, or their tests ended in a way that says nothing; the message counts them."""


def copy(root: Path, tree: Path) -> None:
    """The tracked files as they are now; those that did not change keep their times, those that are gone go."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    names = [name for name in listed.decode().split("\0") if name and (root / name).is_file()]
    for name in names:
        target, content = tree / name, (root / name).read_bytes()
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    for folder in ("ica", "tests"):
        for path in set((tree / folder).rglob("*.py")) - {tree / name for name in names}:
            path.unlink()


def outcomes(tree: Path) -> dict[str, str]:
    """Mutant -> noticed or survived.

    Raises:
        Unfinished: some are neither.
    """
    kept = sorted((tree / "mutants").rglob("*.meta"))
    codes = {
        name: code
        for path in kept
        for name, code in json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"].items()
    }
    odd = Counter(code for code in codes.values() if code not in CODES)
    if odd or not codes:
        said = ", ".join(f"{count} with {code}" for code, count in odd.items()) or "there is none"
        raise Unfinished(
            f"mutants without an outcome: {said}; `make mutants` goes on, after `make clean` it begins anew"
        )
    return {name: CODES[code] for name, code in sorted(codes.items())}


def change(tree: Path, name: str) -> tuple[str, str]:
    """A mutant's function without its module, as Class.name, and what was changed: lines that went and came."""
    show = [sys.executable, "-m", "mutmut", "show", name]
    text = subprocess.run(show, cwd=tree, capture_output=True, text=True, check=True).stdout
    lines = [line for line in text.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    place = name.rpartition("__mutmut_")[0].rpartition(".")[2].removeprefix("x_")
    return place.replace("xǁ", "").replace("ǁ", "."), "\n".join(" ".join(line.split()) for line in lines)


def reasons(root: Path) -> dict[tuple[str, str], str]:
    """(function, change) -> why the change cannot be noticed; ValueError for a list that says something else."""
    try:
        found = yaml.safe_load((root / REASONS).read_text(encoding="utf-8"))
        return {(one["function"], one["change"].strip()): str(one["why"]) for one in found}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{REASONS} is damaged ({error}); accepted is a list of function, change, why"
        ) from error


def report(root: Path, tree: Path) -> dict:
    """Counts by module, and the survivors with their reasons, as they are kept in `results/mutants.json`.

    Raises:
        Unfinished: as `outcomes` says.
    """
    found, known, survivors = outcomes(tree), reasons(root), []
    modules = {name: module_of(root, name) for name in found}
    for name, outcome in found.items():
        if outcome == SURVIVED:
            function, lines = change(tree, name)
            why = known.get((function, lines), "")
            survivors.append({"module": modules[name], "function": function, "change": lines, "why": why})
    counts = {
        module: Counter(found[name] for name in found if modules[name] == module)
        for module in sorted(set(modules.values()))
    }
    return {
        "modules": {
            module: {"mutants": sum(count.values()), NOTICED: count[NOTICED]}
            for module, count in counts.items()
        },
        "survivors": survivors,
    }


def needless(root: Path, found: dict) -> list[str]:
    """Reasons for changes that were noticed or not made, in words."""
    survived = {(one["function"], one["change"]) for one in found["survivors"]}
    return [
        f"no mutant of {name} that survived is\n{lines}"
        for name, lines in reasons(root)
        if (name, lines) not in survived
    ]


def module_of(root: Path, name: str) -> str:
    """The module of a mutant, as a path."""
    module = name.rpartition("__mutmut_")[0].rpartition(".")[0]
    while not (root / module.replace(".", "/")).with_suffix(".py").is_file():
        module = module.rpartition(".")[0]
    return module.replace(".", "/") + ".py"


def share(modules: Iterable[dict]) -> float:
    """Which share of all mutants was noticed."""
    every = list(modules)
    return sum(one[NOTICED] for one in every) / sum(one["mutants"] for one in every)


def kept(root: Path) -> dict | None:
    """The stored report; None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = root / STORED
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        share(found["modules"].values())
        for one in found["survivors"]:
            _ = one["module"], one["function"], one["change"], one["why"]
        _ = found["provenance"]["commit"], found["provenance"]["mutmut"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{STORED} is damaged ({error}); `git checkout -- results` restores it") from error
    return found


def said(found: dict) -> str:
    """The report in lines: a module each, then what survived without a reason."""
    lines = [
        f"{one[NOTICED]:5d} of {one['mutants']:5d}  {share([one]):.1%}  {module}"
        for module, one in found["modules"].items()
    ]
    gaps = [one for one in found["survivors"] if not one["why"]]
    lines += [f"\n{one['module']}: {one['function']}\n{one['change']}" for one in gaps]
    total = share(found["modules"].values())
    return "\n".join([*lines, f"\n{total:.1%} noticed; {len(gaps)} survived without a reason in {REASONS}"])


def _work(options: argparse.Namespace, tell: jobs.Tell) -> None:
    root = project_root() or Path.cwd()
    if options.store:
        stored.check(root)
    reasons(root)
    tree = root / "build" / "mutants"
    started, begun = datetime.now(UTC), time.perf_counter()
    copy(root, tree)
    environment = os.environ | jobs.ENVIRONMENT | {"PYTHONPATH": ""}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(options.jobs)]
    if subprocess.run(command, cwd=tree, env=environment, check=False).returncode:
        raise Unfinished("mutmut ended before all mutants were tried; what it wrote says why")
    found = report(root, tree)
    print(said(found))
    if left := needless(root, found):
        raise ValueError(f"{REASONS}: " + "\n".join(left))
    about = {
        "commit": commit(),
        "dirty": dirty(),
        "hardware": hardware(),
        "mutmut": importlib.metadata.version("mutmut"),
    }
    about |= {"started": started.isoformat(timespec="seconds"), "seconds": round(time.perf_counter() - begun)}
    if options.store:
        print(write_json(root / STORED, found | {"provenance": about}))
        stored.accept(root / "results")
    if (total := share(found["modules"].values())) < LEAST:
        raise ValueError(f"{total:.1%} of the mutants were noticed; at least {LEAST:.0%} must be")


def main() -> int:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--store", action="store_true", help=f"keep the report in {STORED}, for the page")
    options = parser.parse_args()
    return jobs.run(lambda tell: _work(options, tell), "Mutation testing")


if __name__ == "__main__":
    sys.exit(main())
