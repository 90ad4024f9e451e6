"""Which training jobs a build needs: what the Snakefile asks."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ica.build import notebooks
from ica.synthetic.training.catalogue import Job, jobs, jobs_of
from ica.synthetic.training.results import kept


def needed(root: Path, overrides: Mapping[str, notebooks.Parameters]) -> dict[str, list[Job]]:
    """For each notebook the jobs whose results it reads: the runs in its metadata, as `notebooks.runs` says, less what is `kept`.

    Raises:
        ValueError: a notebook that names runs without their scale and declares no parameter `scale`, or a run
            or scale that there is not.
    """
    found: dict[str, list[Job]] = {}
    for name, changes in overrides.items():
        values = {**notebooks.declared(notebooks.read(root, name), name), **changes}
        named = [text.rpartition("/") for text in notebooks.runs(root, name)]
        if "scale" not in values and any(not scale for scale, _, _ in named):
            raise ValueError(
                f"notebook {name}: it names a run without its scale, so it must declare the parameter `scale`"
            )
        try:
            asked = [job for scale, _, run in named for job in jobs_of(run, scale or values["scale"])]
            found[name] = [job for job in asked if kept(job) is None]
        except ValueError as error:
            raise ValueError(f"notebook {name}: {error}") from error
    return found


def digests(own: Mapping[str, str], wanted: Mapping[str, list[Job]], code: str) -> dict[str, str]:
    """The notebooks' digests, with the runs that they read and the code that trains those."""
    return {
        name: hashlib.sha256(
            json.dumps([digest, code, [[job.id, job.every] for job in wanted[name]]]).encode()
        ).hexdigest()
        if wanted[name]
        else digest
        for name, digest in own.items()
    }


def to_store(scale: str, names: str) -> list[Job]:
    """The jobs of a scale, or only of the runs named (apart by spaces); ValueError for what there is not."""
    every = jobs(scale)
    chosen = [jobs_of(name, scale) for name in names.split()] or list(every.values())
    return [job for group in chosen for job in group]
