"""What a build read, ran and made, as an RO-Crate: `ro-crate-metadata.json` beside the claims, for archives and programs.

RO-Crate 1.1 (https://w3id.org/ro/crate/1.1) with the profile Process Run Crate 0.5: each notebook's run is a CreateAction with its times,
parameters and software, from the notebook that the site offers to the figures and tables that it recorded. Paths are those below build/.
"""

import json
from datetime import datetime, timedelta
from pathlib import Path

import yaml

from ica.build import notebooks
from ica.build.stage import RECORDED, version

FILE = "ro-crate-metadata.json"
CRATE, PROFILE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.5"
CC, MIT = "https://spdx.org/licenses/CC-BY-4.0", "https://spdx.org/licenses/MIT"
FORMATS = {
    ".csv": "text/csv",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
Entity = dict[str, object]


def _to(ids: list[str]) -> list[Entity]:
    return [{"@id": id} for id in ids]


def _file(path: Path, place: str, about: str) -> Entity:
    """A file of the crate: `place` is where it lies below build/, `path` where it lies now."""
    return {
        "@id": place,
        "@type": "File",
        "name": path.name,
        "description": about,
        "encodingFormat": FORMATS[path.suffix],
        "contentSize": str(path.stat().st_size),
        "license": {"@id": CC},
    }


def _software(run: dict) -> list[Entity]:
    """The project at its commit, and what its results rest on, by version."""
    commit = run["commit"] or f"no commit: {run['no_commit']}"
    own = {"@id": "#ica", "@type": "SoftwareApplication", "name": "ica", "license": {"@id": MIT}}
    own |= {
        "softwareVersion": f"{run['versions']['ica']} ({commit}{', with local changes' if run['dirty'] else ''})"
    }
    others = {name: found for name, found in run["versions"].items() if found and name != "ica"}
    needs = [
        {"@id": f"#{name}", "@type": "SoftwareApplication", "name": name, "softwareVersion": found}
        for name, found in others.items()
    ]
    return [own | {"softwareRequirements": _to([one["@id"] for one in needs])}, *needs]


def _run(name: str, record: Path, site: Path) -> tuple[Entity, list[Entity], list[Entity]]:
    """The run of a notebook, its files, and its parameters."""
    run = json.loads((record / "run.json").read_text(encoding="utf-8"))
    began = datetime.fromisoformat(run["started"])
    offered = f"_sources/notebooks/{name}.ipynb"
    source = _file(site / offered, f"book/{offered}", f"Notebook {name}, as the site offers it")
    made = []
    for file in sorted(record.rglob("*")):
        kind, _, rest = file.relative_to(record).as_posix().partition("/")
        if rest and RECORDED.fullmatch(f"{kind}/{rest}"):
            place = f"{'_figures' if kind == 'figures' else '_tables'}/{name}/{rest}"
            if (
                not rest.endswith(".dark.svg") or (site / place).is_file()
            ):  # else it lies in the light one's file
                about = f"{kind.rstrip('s').title()} of notebook {name}"
                made.append(_file(site / place, f"book/{place}", about))
    values = [
        {
            "@id": f"#{name}-{key}",
            "@type": "PropertyValue",
            "name": key,
            "value": value if isinstance(value, str) else json.dumps(value),
        }
        for key, value in (run["parameters"] | {"seeds": run["seeds"]}).items()
    ]
    hardware = run["hardware"]
    action = {
        "@id": f"#run-{name}",
        "@type": "CreateAction",
        "name": f"Run of notebook {name}",
        "description": f"Profile {run['profile']}, on {hardware['cpu']}, {hardware['cores']} cores, {run['platform']}",
        "instrument": {"@id": "#ica"},
        "object": _to([source["@id"], *(one["@id"] for one in values)]),
        "result": _to([one["@id"] for one in made]),
        "startTime": run["started"],
        "endTime": (began + timedelta(seconds=run["seconds"])).isoformat(timespec="seconds"),
    }
    return action, [source, *made], values


def _people(root: Path) -> tuple[list[Entity], dict]:
    """The authors of CITATION.cff, and what else it says."""
    file = root / "CITATION.cff"
    cited = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = []
    for k, one in enumerate(cited.get("authors", [])):
        name = one.get("name") or f"{one.get('given-names', '')} {one['family-names']}".strip()
        kind = "Organization" if "name" in one else "Person"
        found.append({"@id": one.get("orcid", f"#author-{k}"), "@type": kind, "name": name})
    return found, cited


def metadata(root: Path, out: Path, site: Path) -> dict:
    """The crate of the build whose records are in `out` and whose pages in `site`, as JSON types.

    Raises:
        KeyError, ValueError: a record that is none. OSError: a file that is missing.
    """
    names = notebooks.listed(root)
    runs = [_run(name, out / "record" / name, site) for name in names]
    ledgers = {
        "claims.json": "Our claims with their verdicts",
        "paper_claims.json": "The paper's claims with their tests",
    }
    files = [_file(out / name, name, about) for name, about in ledgers.items()]
    files += [one for _, found, _ in runs for one in found]
    last = max(
        (json.loads((out / "record" / name / "run.json").read_text(encoding="utf-8")) for name in names),
        key=lambda run: run["started"],
    )
    people, cited = _people(root)
    about = {
        "@id": FILE,
        "@type": "CreativeWork",
        "conformsTo": {"@id": CRATE},
        "about": {"@id": "./"},
    }
    title = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["title"]
    whole = {
        "@id": "./",
        "@type": "Dataset",
        "name": cited.get("title", title),
        "description": f"Site, figures, tables and claims of a build of version {version(root)}",
        "datePublished": last["started"],
        "license": {"@id": CC},
        "author": _to([one["@id"] for one in people]),
        "conformsTo": {"@id": PROFILE},
        "hasPart": _to([one["@id"] for one in files]),
        "mentions": _to([action["@id"] for action, _, _ in runs]),
    }
    known = [
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": CC, "@type": "CreativeWork", "name": "CC BY 4.0"},
        {"@id": MIT, "@type": "CreativeWork", "name": "MIT licence"},
    ]
    values = [one for _, _, found in runs for one in found]
    graph = [
        about,
        whole,
        *known,
        *people,
        *_software(last),
        *(action for action, _, _ in runs),
        *files,
        *values,
    ]
    return {"@context": f"{CRATE}/context", "@graph": graph}
