"""Directive `single-items`: the items that stored models were asked, to search and to read as dialogues where scripts run.

What is shown is written beside the pages (`_items`), a script file for each model, loaded when it is asked for; so the page works from disk.
`items.js` sets every text as text. Without scripts three dialogues stand in the page.
"""

import json
from pathlib import Path

from companion_data import Directive, number, raw, read, text
from docutils import nodes
from sphinx.application import Sphinx

from ica.record.outside import plain_text, plain_values

FOLDER = "_items"
EXAMPLES = 3  # dialogues that stand in the page itself
SHOWN = ("core", "review", "released")  # blocks of these
ABSENT = (
    "The texts of the items were not on the machine that built this page (`python -m ica.llm.model.assets bbq` brings them), so it shows numbers alone; "
    "an item is named by its hash, its options by their places."
)


def script(name: str, value: object) -> str:
    """A script that hands over the value under this name; what it holds is JSON in ASCII, whatever the texts are."""
    given = json.dumps(plain_values(value), separators=(",", ":"), allow_nan=False)
    return f"(window.companionItems ??= {{}})[{json.dumps(name)}] = {given};\n"


class SingleItems(Directive):
    """`{single-items}`: no argument, no body."""

    def run(self) -> list[nodes.Node]:
        # Of Part III, which a project without language models lacks, and slow to load: here, not at the top.
        from ica.llm.analysis import dialogues, effects
        from ica.llm.protocol import results

        try:
            readings, known = results.stored(), dialogues.texts()
        except ValueError as error:
            raise self.error(f"single-items: {error}") from error
        if not readings:
            return [text("No model is stored in results/llm; `make ladder` evaluates some.")]
        folder = Path(self.env.app.outdir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        models = []
        for place, reading in enumerate(readings):
            (folder / f"{place}.js").write_text(script(str(place), dialogues.packed(reading)))  # ASCII
            models.append(effects.title(reading))
        given = {"models": models, "outcomes": dialogues.OUTCOMES, "leads": dialogues.leads()}
        given["blocks"] = [self.block(*pair, dialogues.PAGES) for pair in dialogues.TITLES.items()]
        given["items"] = dialogues.facts(readings, known)
        (folder / "items.js").write_text(script("items", given))
        rows = list({record["category"]: record for record in reversed(readings[0].records)}.values())[::-1]
        words = f"Three dialogues of {models[0]}: the first item of each of the first three categories."
        static = nodes.container("", text(words), classes=["items-static"])
        static += text("Demonstrations that stand before each question are left out.")
        for record in rows[:EXAMPLES]:
            static += self.dialogue(record, dialogues, known)
        absent = [] if known else [nodes.warning("", text(ABSENT))]
        return [*absent, *self.frame(static)]

    def block(self, name: str, title: str, pages: dict) -> dict:
        """Title and pages, as addresses relative to this one."""
        to = self.env.app.builder.get_relative_uri
        links = [[to(self.env.docname, f"notebooks/{page}"), self.title_of(page)] for page in pages[name]]
        return {"name": name, "title": title, "pages": links}

    def title_of(self, notebook: str) -> str:
        """The first heading of a notebook; its name where the book has no such page."""
        source = self.records / notebook / "source.ipynb"
        cells = read(source)["cells"] if source.is_file() else [{"source": []}]
        lines = "".join(cells[0]["source"]).splitlines()
        return next((line[2:].strip() for line in lines if line.startswith("# ")), notebook)

    def frame(self, static: nodes.Node) -> list[nodes.Node]:
        """Style, the dialogues that scripts replace, and the script."""
        up = "../" * self.env.docname.count("/")
        style = raw('<link rel="stylesheet" href="{up}_static/items.css">', up=up)
        code = raw(
            '<script src="{up}_static/items.js" data-folder="{up}{folder}/"></script>', up=up, folder=FOLDER
        )
        return [style, static, code]

    def dialogue(self, record: dict, dialogues: object, known: dict) -> list[nodes.Node]:
        """One item as text and a table: what was asked, what was added to the prompt, and what came of it."""
        item = known.get(record["id"]) or dialogues.nameless(record)
        found, rows = dialogues.steps(item, record), []
        for block in (name for name in SHOWN if name in found):
            for step in found[block]:
                asked = f"{dialogues.TITLES[block]}: {step.label}"
                rows.append([[text(cell)] for cell in (asked, step.tail.strip(), *told(step, item.options))])
        names = item.options[record["gold"]], record["category"].replace("_", " "), record["condition"]
        head = text("{1}, {2}; right: {0}".format(*names), "rubric")
        stem = plain_text(found["core"][0].stem.removeprefix(dialogues.leads()["{lead verdict}"]))
        table = self.table(
            ["Asked", "Added to the prompt", "Log-probability (nats), or text", "Result"], rows
        )
        question = nodes.literal_block(stem, stem, language="text")
        return [head, question, nodes.container("", table, classes=["cards"])]


def told(step: object, options: tuple) -> tuple[str, str]:
    """What was read, and what it leads to, in words."""
    if isinstance(step.read, str):
        named = {None: "", -1: "no option"} | dict(enumerate(options))
        return step.read, named[step.chosen]
    names = options if step.kind in ("options", "scores") else step.kind.split("/")
    rows = step.read if isinstance(step.read[0], list) else [step.read]
    words = [f"{name}: {', '.join(number(row[k], '.2f') for row in rows)}" for k, name in enumerate(names)]
    return "; ".join(words), names[step.chosen]


def setup(app: Sphinx) -> None:
    app.add_directive("single-items", SingleItems)
