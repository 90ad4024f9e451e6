"""The catalogue of training runs, `runs.yml`: which configurations and seeds each scale trains, and the jobs they make."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml

from ica import checks
from ica.synthetic.task.config import RunConfig

FILE = Path(__file__).with_name("runs.yml")
SCALES = ("ci", "stated", "walk", "cores", "paper", "full")
LIVE = ("ci", "stated")  # those that a build trains itself
SECTION = ("config", "groups", "every", "runs")


@dataclass(frozen=True)
class Job:
    """One training job: a configuration, the seeds that train together, and how often it saves and looks."""

    scale: str
    name: str
    config: RunConfig
    seeds: tuple[int, ...]
    every: int

    @property
    def id(self) -> str:
        """Hash of configuration and seeds; it names the folder of the result."""
        return self.config.hash(self.seeds)

    @property
    def stem(self) -> str:
        """Name of the stored result: scale, run and seeds."""
        return f"{self.scale}-{self.name}-seed{'-'.join(map(str, self.seeds))}"


def _one_of(what: str, name: str, accepted: tuple[str, ...]) -> str:
    """The name if it is among those accepted; else ValueError, with the one that it resembles."""
    try:
        return checks.one_of(what, name, accepted)
    except ValueError as error:
        near = get_close_matches(str(name), accepted, 1)
        raise ValueError(f"{error}; did you mean {near[0]}?" if near else str(error)) from None


def _section(table: object, scale: str, file: Path) -> dict:
    _one_of("scale", scale, SCALES)
    section = table.get(scale) if isinstance(table, dict) else None
    if not isinstance(section, dict) or sorted(map(str, section)) != sorted(SECTION):
        raise ValueError(f"{file.name}: {scale} must hold exactly {', '.join(SECTION)}")
    for field in ("config", "runs"):
        if not isinstance(section[field], dict):
            raise ValueError(f"{file.name}: {scale}: {field} must be a mapping, got {section[field]!r}")
    return section


def _groups(groups: object, where: str) -> list[tuple[int, ...]]:
    if not isinstance(groups, list) or not groups or not all(isinstance(g, list) and g for g in groups):
        raise ValueError(f"{where}: groups must be a list of lists of seeds, got {groups!r}")
    seeds = [checks.whole(f"{where}: seed", seed, 0) for group in groups for seed in group]
    if len(set(seeds)) != len(seeds):
        raise ValueError(f"{where}: a seed stands in two groups: {groups!r}")
    return [tuple(group) for group in groups]


def jobs(scale: str, file: Path = FILE) -> dict[str, list[Job]]:
    """Every run of a scale, name -> its jobs, in the order of the file.

    Raises:
        ValueError: an unknown scale, or an entry of the file that is malformed, named.
    """
    try:
        table = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{file.name} is no YAML ({' '.join(str(error).split())})") from error
    section = _section(table, scale, file)
    groups = _groups(section["groups"], f"{file.name}: {scale}")
    every = checks.whole(f"{file.name}: {scale}: every", section["every"], 1)
    found = {}
    for name, changes in section["runs"].items():
        try:
            config = RunConfig.from_dict({**section["config"], **(changes or {})})
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{file.name}: {scale}: run {name}: {error}") from error
        found[name] = [Job(scale, name, config, seeds, every) for seeds in groups]
    return found


def jobs_of(name: str, scale: str, file: Path = FILE) -> list[Job]:
    """The jobs of one run.

    Raises:
        ValueError: no run of that name at that scale, or as `jobs` says.
    """
    found = jobs(scale, file)
    return found[_one_of(f"run of scale {scale}", name, tuple(found))]
