"""Which training jobs a build needs: what the Snakefile asks."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from ica.build import notebooks
from ica.synthetic.training.catalogue import Job, jobs, jobs_of


def needed(root: Path, overrides: Mapping[str, notebooks.Parameters]) -> dict[str, list[Job]]:
    """For each notebook the jobs whose results it reads: the runs in its metadata, at the scale of its parameter `scale`.

    Raises:
        ValueError: a notebook that names runs and declares no parameter `scale`, or a run or scale that there is not.
    """
    found: dict[str, list[Job]] = {}
    for name, changes in overrides.items():
        names = notebooks.runs(root, name)
        values = {**notebooks.declared(notebooks.read(root, name), name), **changes}
        if names and "scale" not in values:
            raise ValueError(f"notebook {name}: it names runs, so it must declare the parameter `scale`")
        try:
            found[name] = [job for run in names for job in jobs_of(run, values["scale"])]
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
