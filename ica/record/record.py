"""The record of a notebook run: figures, tables, claims and numbers, each checked and written as it is made.

The folder is `ICA_OUTPUT` if that is set (a build), else `build/interactive/<notebook>` in the checkout, or
in the current folder outside one; in that interactive case everything is also shown under the cell.
Whatever text a run hands over, a model's answer or the words of an error, is kept as `outside.plain_text`.
"""

import hashlib
import html
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, Image, display
from matplotlib.figure import Figure

from ica.record import claims, figures
from ica.record.outside import each_text, plain_text, plain_values
from ica.record.parameters import checked
from ica.record.provenance import plain, project_root, provenance, seconds_since, write_atomic, write_json

UNIT = re.compile(r"[a-z][a-z -]*")
KEY = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
KNOWN = {"figures": figures.SUFFIXES, "tables": (".csv", ".json"), "timed": (".csv", ".json")}
LISTS = ("claims.json", "numbers.json", "run.json")


def output_folder(notebook: str) -> Path:
    """Folder of the record: `ICA_OUTPUT`, else `build/interactive/<notebook>` in the checkout or here."""
    given = os.environ.get("ICA_OUTPUT")
    return Path(given) if given else (project_root() or Path.cwd()) / "build" / "interactive" / notebook


def _clear(folder: Path) -> None:
    """Remove what an earlier run of the same notebook left: the files a Record writes, and no other."""
    for name, suffixes in KNOWN.items():
        for path in (folder / name).glob("*"):
            stem, dot, suffix = path.name.partition(".")
            if figures.ID.fullmatch(stem) and dot + suffix in suffixes:
                path.unlink()
    for name in LISTS:
        (folder / name).unlink(missing_ok=True)


def _format(df: pd.DataFrame, formats: dict[str, str]) -> pd.DataFrame:
    """Return the table as text, columns in their formats; ValueError naming a column or format that fails."""
    if unknown := [c for c in formats if c not in df.columns]:
        raise ValueError(
            f"formats must name columns of the table, got {unknown[0]!r}; it has {list(df.columns)}"
        )
    shown = df.astype(object).copy()
    for column, spec in formats.items():
        try:
            shown[column] = [format(cell, spec) for cell in df[column]]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"formats[{column!r}] must fit every cell of the column, got {spec!r}: {error}"
            ) from error
    return shown


def _plain(data, title, columns) -> tuple:
    """What a caller hands over with a figure or table, its texts as they are kept."""
    table = each_text(data) if isinstance(data, pd.DataFrame) else data
    return table, plain_values(title), plain_values(columns)


class Record:
    """Record of one run of `notebook`, with the parameters and seeds it ran with; also sets the house style.

    Making it again for the same notebook starts anew: earlier files of the record are removed. `registry` is
    for tests; default is `ica.record.claims.load()`. ValueError for a bad name, parameters that the
    notebook does not accept (`ica.record.parameters`), parameters or seeds that JSON cannot hold, or a folder that holds another notebook's record.
    """

    def __init__(self, notebook: str, parameters: dict, seeds: list[int], registry: dict | None = None):
        if not isinstance(notebook, str) or not claims.NOTEBOOK.fullmatch(notebook):
            raise ValueError(f"notebook must match {claims.NOTEBOOK.pattern}, got {notebook!r}")
        if not isinstance(parameters, dict):
            raise ValueError(f"parameters must be a dict, name -> value; got {type(parameters).__name__}")
        checked(notebook, parameters)
        if isinstance(seeds, str) or not all(isinstance(s, int) and not isinstance(s, bool) for s in seeds):
            raise ValueError(f"seeds must be a list of whole numbers, got {seeds!r}")
        self.notebook = notebook
        self.folder = output_folder(notebook)
        self.interactive = not os.environ.get("ICA_OUTPUT")
        self._registry = claims.load() if registry is None else registry
        self._started = datetime.now(UTC)
        self._provenance = plain_values(provenance(notebook, parameters, list(seeds), self._started))
        self._ids: set[str] = set()
        self._claims: list[dict] = []
        self._numbers: dict[str, float | int | str] = {}
        self._refuse_foreign()
        _clear(self.folder)
        figures.style()
        self._write()

    def _refuse_foreign(self) -> None:
        path = self.folder / "run.json"
        if not path.is_file():
            return
        owner = json.loads(path.read_text(encoding="utf-8"))["notebook"]
        if owner != self.notebook:
            raise ValueError(
                f"ICA_OUTPUT must be a folder of its own for each notebook; this one is of {owner}"
            )

    def _now(self) -> dict:
        return self._provenance | {"seconds": seconds_since(self._started)}

    def _write(self) -> None:
        write_json(self.folder / "claims.json", self._claims)
        write_json(self.folder / "numbers.json", self._numbers)
        write_json(self.folder / "run.json", self._now())

    def _take(self, id: str, kind: str) -> None:
        if not isinstance(id, str) or not figures.ID.fullmatch(id):
            raise ValueError(
                f"id must match {figures.ID.pattern} (small letters, digits, hyphens), got {id!r}"
            )
        if (kind, id) in self._ids:
            raise ValueError(f"id must be new in this run; {kind} {id} is recorded already")

    def _show(self, markup: str, text: str) -> None:
        if self.interactive:
            display(HTML(markup)) if get_ipython() else print(text)

    def figure(
        self, id: str, fig: Figure, data: pd.DataFrame, title: str, columns: dict[str, str] | None = None
    ) -> None:
        """Save a figure and the tidy table behind it under `figures/<id>`, then close it.

        `columns`: what the columns of `data` mean, with units. ValueError as in `figures.save`, or if the id
        is taken.
        """
        self._take(id, "figure")
        data, title, columns = _plain(data, title, columns)
        paths = figures.save(fig, self.folder / "figures", id, data, title, self._now(), columns)
        self._ids.add(("figure", id))
        self._write()
        if self.interactive and get_ipython():
            display(Image(filename=str(paths[".png"]), width=720))
        plt.close(fig)

    def table(
        self,
        id: str,
        df: pd.DataFrame,
        title: str,
        formats: dict[str, str] | None = None,
        timed: bool = False,
        columns: dict[str, str] | None = None,
    ) -> None:
        """Save a table under `tables/<id>` (`timed/<id>` if it holds wall-clock times) with full precision.

        `formats`: column -> format specification in which the page shows it, as in {"error": ".1e"};
        `columns`: what the columns mean, with units. ValueError if the id is taken, the table is empty, holds
        infinities, or a format does not fit.
        """
        self._take(id, "table")
        df, title, columns, formats = *_plain(df, title, columns), plain_values(formats)
        figures.check_names(id, title)
        csv = figures.csv_bytes(df, "df")
        shown = _format(df, formats or {})
        about = {
            "id": id,
            "title": title,
            "licence": figures.LICENCE,
            "formats": formats or {},
            "timed": timed,
            "rows": len(df),
            "columns": figures.describe(df, columns),
            "csv_sha256": hashlib.sha256(csv).hexdigest(),
            "provenance": self._now(),
        }
        folder = self.folder / ("timed" if timed else "tables")
        plain(about)
        write_atomic(folder / f"{id}.csv", csv)
        write_json(folder / f"{id}.json", about)
        self._ids.add(("table", id))
        self._write()
        self._show(
            f"<p>{html.escape(title)}</p>" + shown.to_html(index=False, escape=True),
            shown.to_string(index=False),
        )

    def _claim(self, id: str) -> claims.Claim:
        if id not in self._registry:
            raise ValueError(
                f"claim {id!r} is not registered in ica/record/registry/*.yml; its criterion comes before the run"
            )
        claim = self._registry[id]
        if claim.notebook != self.notebook:
            raise ValueError(f"claim {id} belongs to notebook {claim.notebook}, not to {self.notebook}")
        self._take(id, "claim")
        return claim

    def _measured(self, claim: claims.Claim, measurement: dict) -> None:
        row = claims.row(claim, measurement)
        self._claims.append(measurement)
        self._ids.add(("claim", claim.id))
        self._write()
        parts, verdict = measurement["parts"].items(), row["verdict"]
        shown = "; ".join(f"{name} {p['value']:.4g} ({claim.criteria[name]})" for name, p in parts)
        line = f"{claim.id}: {row['says']} {claim.measured}: {shown or measurement['untestable']}"
        self._show(f"<p><strong>{html.escape(verdict)}</strong> {html.escape(line)}</p>", line)

    def claim(
        self,
        id: str,
        value=None,
        interval=None,
        n: int | dict[str, int] | None = None,
        parts: dict | None = None,
    ) -> None:
        """Record a measurement: one `value`, or `parts` as {name: dict(value=, interval=, n=)}.

        interval: (lo, hi) around the value, required for stochastic claims; n: sample size, {unit: count} or, of an
        exact claim, the number of cases. ValueError if the claim is not registered, belongs to another notebook, is
        recorded already, or the measurement does not fit it.
        """
        claim = self._claim(id)
        if parts is None:
            parts = {"value": {"value": value, "interval": interval, "n": n}}
        elif value is not None or interval is not None or n is not None:
            raise ValueError(f"claim {id}: parts must come alone, without value, interval or n beside them")
        for name, part in parts.items():
            if not isinstance(part, dict) or "value" not in part or set(part) - {"value", "interval", "n"}:
                raise ValueError(
                    f"claim {id}: parts[{name!r}] must be dict(value=, interval=, n=), got {part!r}"
                )
            for unit in part["n"] if isinstance(part.get("n"), dict) else ():
                if not isinstance(unit, str) or not UNIT.fullmatch(unit):
                    raise ValueError(f"claim {id}: n must count things named in letters, got {unit!r}")
        self._measured(claim, claims.check(claim, {"id": id, "parts": parts, "untestable": None}))

    def untestable(self, id: str, why: str) -> None:
        """Record that a registered claim cannot be tested here, and why, in words; errors as in `claim`."""
        claim = self._claim(id)
        if not isinstance(why, str) or not why.strip():
            raise ValueError(f"why must be the reason in words, got {why!r}")
        self._measured(claim, claims.check(claim, {"id": id, "parts": {}, "untestable": plain_text(why)}))

    def number(self, key: str, value) -> None:
        """Glue a number or text under `key`, for the prose of any page, and keep it in `numbers.json`.

        ValueError for a bad or repeated key, and for anything but a finite number or text.
        """
        if not isinstance(key, str) or not KEY.fullmatch(key):
            raise ValueError(f"key must match {KEY.pattern}, got {key!r}")
        if key in self._numbers:
            raise ValueError(f"key must be new in this run; {key} is recorded already")
        value = plain_values(plain(value, key))
        if isinstance(value, bool) or not isinstance(value, (int, float, str)):
            raise ValueError(f"{key} must be a finite number or text, got {value!r}")
        self._numbers[key] = value
        self._write()
        if get_ipython():
            from myst_nb import glue

            glue(key, value, display=False)
