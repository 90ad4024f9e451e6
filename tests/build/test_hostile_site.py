"""Hostile text in every field that a user, a model or a machine can fill: the small project built, and opened in a browser."""

import json
import sys
from pathlib import Path

import nbformat
import pytest
import small_project
import yaml
from small_project import HOSTILE, edit

from ica.record.outside import plain_text

ROOT = Path(__file__).parents[2]
SECRET = "what-no-page-may-hold"
CLEAN = [" ".join(plain_text(piece).split()) for piece in HOSTILE]
NAME = "<script>window.hit=1</script> **x** `y` $\\frac$ {{ z }} \x1b[1m\x00\u202e"
PART = "</td><script>window.hit = 1</script> **x** `y` (z) <b>"
START = """
import os, platform
from ica.hostile import HOSTILE, NAME
from ica.record import provenance
from ica.record.record import Record
platform.platform = lambda: HOSTILE
provenance._cpu_model = lambda: HOSTILE
os.environ["ICA_PROFILE"] = os.environ["ICA_COMMIT"] = NAME.replace(chr(0), "")
"""
ALPHA = """
import matplotlib.pyplot as plt, pandas as pd
record = Record("alpha", {"seed": seed, HOSTILE: HOSTILE}, [seed])
data = pd.DataFrame({HOSTILE: [HOSTILE, "=1+1"], "value": [1.0, 2.0]})
fig, ax = plt.subplots()
ax.plot([0, 1], label=NAME)
ax.set(xlabel=NAME, ylabel=NAME[:9], title=NAME)
ax.set_xticks([0, 1], [NAME[:12], "b"])
ax.legend()
record.figure("alpha-curve", fig, data, title=HOSTILE, columns={HOSTILE: HOSTILE})
record.table("alpha-table", data, title=HOSTILE, columns={HOSTILE: HOSTILE})
record.table("alpha-said", data, title=HOSTILE, formats={"value": ".1f"})
record.number("alpha-number", HOSTILE)
"""
OUTPUTS = r"""
import sys
class Thing:
    def __repr__(self):
        return HOSTILE.replace(chr(0xd800), r"\ud800")  # Jupyter itself refuses to send one, and names the cell
    def _repr_html_(self):
        return repr(self)
    _repr_markdown_ = _repr_latex_ = _repr_javascript_ = _repr_svg_ = _repr_html_
print(repr(Thing()))
print(repr(Thing()), file=sys.stderr)
Thing()
"""
# Where each page must show the text: a CSS selector, and how often at least.
SHOWN = {
    "notebooks/alpha": {
        ".output.stream pre": 1,
        ".output.stderr pre": 1,
        ".output.text_plain pre": 1,
        "#tab-alpha-said td": 1,
        "#tab-alpha-table th": 1,
        "span.pasted-text": 2,
        ".run-parameters": 1,
        "details.run": 2,
    },
    "notebooks/gamma": {".answer": 1, "details.claims": 1},
    "book/claims": {"details.claims": 1},
    "book/intro": {"span.pasted-text": 1},
}
TEXTS = "selector => [...document.querySelectorAll(selector)].map(e => e.textContent.replace(/\\s+/g, ' ')).join('\\n')"
OBEYED = """() => [...document.querySelectorAll('article script, article iframe, article img:not(figure img, .gallery .thumb > img[src^="../_figures/"])')]
    .concat([...document.querySelectorAll('mjx-container')].filter(e => !e.closest('.math')))
    .map(e => e.outerHTML.slice(0, 120)).filter(text => !/thebe|kernelName/i.test(text))
    .concat([...document.querySelectorAll('[href^="javascript" i], [src*="foreign"], [href*="foreign"], [href*="secret"]')]
    .map(e => e.outerHTML.slice(0, 120))).concat(window.hit ? ['a script ran'] : [])"""


def planted(folder: Path) -> Path:
    """The small project, its notebooks handing over hostile text wherever they can."""
    small_project.write(folder)
    (folder.parent / "secret.txt").write_text(SECRET)
    (folder / "secret.txt").write_text(SECRET)
    text = f"HOSTILE = {chr(10).join(HOSTILE)!a}\nNAME = {NAME!a}\n"
    (folder / "ica/hostile.py").write_text(text)
    registry = folder / "ica/record/registry/synthetic/small.yml"
    (claim,) = yaml.safe_load(registry.read_text())
    parts = claim["criterion"]["parts"]
    claim["criterion"] = {"parts": {PART: parts["n = 2"], "n = 15": parts["n = 15"]}}
    registry.write_text(yaml.safe_dump([claim]))
    edit(folder, "alpha", "parameters", "seed = 0\nscale = 1.5\nphrase = 'none'")
    edit(folder, "alpha", "start", START + "from ica.one import VALUE")
    edit(folder, "alpha", "work", ALPHA.strip())
    edit(folder, "beta", "claim", small_project.CLAIM_CELLS["beta"].replace('"n = 2": {', f"{PART!r}: {{", 1))
    edit(folder, "gamma", "start", START + 'record = Record("gamma", {"seed": seed}, [seed])')
    edit(folder, "gamma", "claim", 'record.untestable("gamma-none", why=HOSTILE)')
    path = folder / "notebooks/alpha.ipynb"
    nb = nbformat.read(path, as_version=4)
    nb.cells.insert(5, nbformat.v4.new_code_cell(OUTPUTS.strip(), id="outputs"))
    nb.cells[-1].source += "\n\nGlued: {glue:text}`alpha-number`; {measured}`alpha-up`.\n"
    nb.cells[-1].source = nb.cells[-1].source.replace(
        "What was said.", "What was said: {glue:text}`alpha-number`."
    )
    nbformat.write(nb, path)
    profiles = {"ci": {"alpha": {"phrase": plain_text(chr(10).join(HOSTILE))}}, "paper": {}}
    (folder / "notebooks/profiles.yml").write_text(yaml.safe_dump(profiles))
    intro = folder / "book/intro.md"
    intro.write_text(intro.read_text().replace("::alpha-number:.3f`", "::alpha-number:s`"))
    return folder


@pytest.fixture(scope="module")
def check():
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        import check_site

        if check_site.CHROMIUM is None:
            pytest.skip("no Chromium here")
        yield check_site
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = planted(tmp_path_factory.mktemp("hostile") / "project")
    done = small_project.build(folder)
    assert done.returncode == 0, done.stdout
    return folder


@pytest.mark.slow
@pytest.mark.fault(
    "Text from outside",
    "Scripts, closing tags, javascript: links, MyST, Jinja, formulas, escapes and words of 10,000 characters stand in every field "
    "that a user, a model or a machine can fill",
    "In a browser each page shows them literally: no script runs, nothing is asked of another site, no page is wider than a phone",
)
def test_browser_shows_hostile_text_and_obeys_none(folder, check):
    book, missing, obeyed, said = folder / "build/book", [], [], []
    with check.sync_playwright() as playwright, check.served(book) as address:
        browser = playwright.chromium.launch(executable_path=check.CHROMIUM, args=check.FLAGS)
        visit = check.Visit(browser, address)
        visit.page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        for name in ("book/intro", "notebooks/alpha", "notebooks/beta", "notebooks/gamma", "book/claims"):
            visit.open(f"{name}.html")
            visit.page.evaluate(check.layout.OPEN)
            visit.narrow()
            obeyed += [f"{name}: {found}" for found in visit.page.evaluate(OBEYED)]
            for selector, times in SHOWN.get(name, {}).items():
                text = visit.page.evaluate(TEXTS, selector)
                if selector == ".run-parameters":  # which stand as Python writes them
                    text = text.replace("\\\\", "\\").replace("\\'", "'")
                missing += [
                    f"{name} {selector}: {piece[:60]}" for piece in CLEAN if text.count(piece) < times
                ]
        for drawing in ("alpha-curve.svg", "alpha-curve.svg#dark"):
            visit.page.goto(f"{address}/_figures/alpha/{drawing}")
            obeyed += visit.page.evaluate("() => window.hit ? ['a script in a drawing ran'] : []")
        visit.search("foreign")
        obeyed += visit.page.evaluate(OBEYED)
        browser.close()
    assert not obeyed and not said
    assert not visit.found
    assert not missing


@pytest.mark.slow
def test_folder_of_the_site_holds_no_foreign_file_and_no_character_that_steers(folder):
    book = folder / "build/book"
    for file in (file for file in book.rglob("*") if file.is_file()):
        content = file.read_bytes()
        assert SECRET.encode() not in content, file
        if file.suffix in (".html", ".svg", ".csv", ".json"):
            assert not set(content.decode()) & {"\x1b", "\x00", "\u202e"}, file
    assert not (book / "_downloads").exists()
    known = {
        "_bib",
        "_figures",
        "_tables",
        "_sources",
        "_static",
        "_sphinx_design_static",
        "_images",
        "book",
        "notebooks",
    }
    assert {path.name for path in book.iterdir() if path.is_dir()} <= known
    for kind in ("_figures", "_tables"):
        assert {file.stem.removesuffix(".dark") for file in (book / kind).rglob("*.*")} <= {
            "alpha-curve",
            "alpha-table",
            "alpha-said",
            "workflow",
        }
    about = json.loads((book / "_tables/alpha/alpha-table.json").read_text())
    assert about["title"] == plain_text("\n".join(HOSTILE))
