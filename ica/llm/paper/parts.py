"""A run of the paper's protocol in parts, which may be asked on different machines: every twelfth group of its items and requests.

A part asks whole groups, those that the run itself would ask, and leaves its records beside the run's own. So the run that follows
finds them, asks what is missing, and its numbers are those of a run in one process, bit for bit where the processors are alike.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ica.build import settings as build
from ica.llm.bbq.items import CATEGORIES
from ica.llm.paper import memory, settings
from ica.llm.paper.checkpoint import Checkpoint

PARTS = len(CATEGORIES) + 1  # as many as there are categories of items, and attacks
FILE = "part-{}.jsonl"


def number(text: str) -> int:
    """The number of a part, 1 to 12; ValueError for any other text."""
    return settings.whole("--part", text, PARTS)


def beside(path: Path, part: int) -> Path:
    """The file of a part's records, beside those of its run."""
    return path.with_name(FILE.format(part))


def gather(checkpoint: Checkpoint) -> int:
    """Put what the parts left into the checkpoint of their run; how many records that were not there.

    Raises:
        CheckpointError: a part is still being asked, or its file is damaged.
    """
    found = 0
    for part in range(1, PARTS + 1):
        if not (path := beside(checkpoint.path, part)).is_file():
            continue
        one = Checkpoint(path)
        one.close()
        if new := {key: record for key, record in one.records.items() if key not in checkpoint.records}:
            checkpoint.put(new)
            found += len(new)
    return found


def words(file: Path) -> dict[str, str]:
    """The words of `make paper-llm` from the settings of a build; ValueError if it is no such file."""
    return dict(build.read(file).words)


@dataclass(frozen=True)
class Spread:
    """A run whose parts are jobs of a workflow.

    Tokens held at once are settled here, as machines differ in memory and these decide the last bits.

    Args:
        words: those of `make paper-llm`, by name.
        threads: of each job.
    """

    words: Mapping[str, str]
    threads: int

    @property
    def id(self) -> str:
        """Names the folder of what the jobs leave; other words, other jobs."""
        text = json.dumps([sorted(self.words.items()), self.threads])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def folder(self) -> str:
        return f"build/paper-llm-jobs/{self.id}"

    @property
    def parts(self) -> range:
        return range(1, PARTS + 1)

    @property
    def gpus(self) -> int:
        """GPUs that each job asks a cluster for."""
        return int(self.words.get("DEVICE", "").startswith("cuda"))

    def gone(self) -> bool:
        """Is the result that an earlier call made no longer there?"""
        try:
            done = json.loads(Path(self.folder, "result.json").read_text(encoding="utf-8"))
            return not Path(done["result"]).is_file()
        except (OSError, ValueError, KeyError, TypeError):
            return True


def settled(words: Mapping[str, str]) -> dict[str, str]:
    """The words with PLACES given: 8192 without a word, whatever the machine holds."""
    return {**words, "PLACES": words.get("PLACES") or str(memory.PLACES[0])}
