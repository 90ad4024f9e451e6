"""How the settings of a build reach its jobs: one JSON file, so that no value passes a shell or a YAML parser.

`book` writes `build/<profile>/settings.json` while it holds the lock; the Snakefile and `execute` read it.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ica.build import notebooks
from ica.build.jobs import MOST
from ica.record.provenance import write_json

TARGETS = ("all", "stored", "ladder", "sweep", "paper_llm")
# What `make paper-llm` takes; `make` hands it on by the environment.
PAPER = ("MODEL", "BBQ", "ITEMS", "DEVICE", "DTYPE", "TEMPLATE", "ATTACKS", "TOKENS", "PLACES", "OUT")


@dataclass(frozen=True)
class Settings:
    """What a build is asked for.

    Args:
        build: its id.
        profile: one of `notebooks.PROFILES`.
        parameters: values by name that notebooks take in place of their own.
        target: "all" (the book), "stored" (training runs of a scale), "sweep" (likewise, with many seeds), "ladder" (language
            models) or "paper_llm" (the paper's protocol for one model).
        stored, runs, threads: the scale, the names of its runs (none: all), and threads for each.
        models: names of the ladder (none: all).
        words: those of `make paper-llm`, by name.
    """

    build: str = ""
    profile: str = "ci"
    parameters: Mapping[str, object] = field(default_factory=dict)
    target: str = "all"
    stored: str = ""
    runs: tuple[str, ...] = ()
    threads: int = 1
    models: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self):
        if self.profile not in notebooks.PROFILES:
            accepted = ", ".join(notebooks.PROFILES)
            raise ValueError(f"PROFILE: unknown profile {self.profile!r}; accepted: {accepted}")
        if (
            isinstance(self.threads, bool)
            or not isinstance(self.threads, int)
            or not 1 <= self.threads <= MOST
        ):
            raise ValueError(f"THREADS: {self.threads!r} is not a number of threads; accepted: 1 to {MOST}")

    @property
    def out(self) -> str:
        """Folder of the profile, from the project's root."""
        return f"build/{self.profile}"

    def write(self, root: Path, name: str = "settings.json") -> Path:
        """Write them where the jobs of the profile find them; ValueError for a value that JSON cannot hold."""
        return write_json(root / self.out / name, asdict(self))


def read(path: Path) -> Settings:
    """Settings from their file.

    Raises:
        ValueError: it is no such file, named. OSError: it cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        lists = {name: tuple(found[name]) for name in ("runs", "models")}
        return Settings(**{**found, **lists})
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"settings {path} are damaged ({error}); `make book` writes them anew") from error
