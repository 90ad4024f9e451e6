"""Text from outside on the pages: what the extension parses and what it only shows, and what a cell may leave on a page."""

import ast
import html
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import small_project
from nbformat.v4 import new_output
from small_project import HOSTILE

from ica.build import stage
from ica.record import figures, record
from ica.record.outside import plain_text

ROOT = Path(__file__).parents[2]
EXTENSION = sorted((ROOT / "book/_ext").glob("*.py"))
WORDS = "\n".join(HOSTILE)
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
GLUE = "application/papermill.record/text/plain"


@pytest.fixture
def extension(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "book/_ext"))
    import companion_bibtex
    import companion_data

    return companion_data, companion_bibtex


# The built pages


def article(folder: Path, name: str) -> str:
    return (folder / f"build/book/{name}.html").read_text().split("<article")[1].split("</article>")[0]


@pytest.mark.fault(
    "Text from outside",
    "A model's chat template raises an error whose words hold a download of a local file, a foreign image, a script",
    "The page, the ledger and the table show the words; no file is copied, nothing is asked of another site",
)
def test_words_of_an_error_are_text_on_every_page(built):
    reason = html.escape(small_project.REASON, quote=False)
    for name, times in (("notebooks/gamma", 2), ("notebooks/alpha", 1), ("book/claims", 1)):
        assert article(built, name).count(reason) == times, name
    for file in (built / "build/book").rglob("*.html"):
        markup = file.read_text()
        assert not re.search(r'(src|href)="[^"]*(foreign|javascript:|secret|passwd)', markup), file
        assert "<script>alert" not in markup, file
    assert not (built / "build/book/_downloads").exists()


@pytest.mark.fault(
    "Text from outside",
    "A cell prints colours, NUL, or a mark that turns the text",
    "The page shows the words without colours, the other characters written out",
)
def test_pages_hold_no_character_that_steers(built):
    for file in [*(built / "build/book").glob("*/*.html"), *(built / "build/book").glob("_sources/**/*.*")]:
        assert not set(file.read_text()) & {"\x1b", "\x00", "\u202e"}, file
    assert r"red \x00 \u202e &lt;i&gt;no&lt;/i&gt;" in article(built, "notebooks/beta")


# What the extension parses


def calls(tree: ast.Module) -> set[tuple[str, str]]:
    """(name of the function or class around it, call) for each call that parses markup or writes HTML."""
    found = set()
    for outer in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        for node in ast.walk(outer):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "raw" and not isinstance(node.args[0], ast.Constant):
                    found.add((outer.name, "raw of what is no constant"))
                if re.search(
                    r"nodes\.raw$|nested_parse|inline_text|inliner\.parse$|^Ours$|writer\.body", called
                ):
                    found.add((outer.name, called))
    return found


def test_markup_is_parsed_and_html_written_in_these_places_alone():
    found = {(path.stem, *call) for path in EXTENSION for call in calls(ast.parse(path.read_text()))}
    assert found == {
        ("companion_data", "ours", "Ours"),
        ("companion_scale", "power", "Ours"),
        ("companion_data", "written", "Ours"),
        ("companion_data", "inline", "self.state.inline_text"),
        ("companion_data", "raw", "nodes.raw"),
        ("companion_claims", "show", "self.inliner.parse"),
        ("companion_claims", "run", "Ours"),  # its first sentence, written there as well
        ("companion_claims", "run", "self.state.nested_parse"),  # the body of an answer, written on the page
        ("companion_figures", "caption", "self.state.nested_parse"),
        ("companion_figures", "visit_images", "writer.body.append"),
    }


def test_only_what_the_registry_says_counts_as_markup(extension):
    data, _ = extension
    row = {"says": "a *b*.", "measurement": "*c*", "note": None}
    assert isinstance(data.ours(row, "says"), data.Ours) and data.ours(row, "note") == ""
    assert data.ours(row, "says", ".") == "a *b*."
    with pytest.raises(ValueError, match="measurement is not written in the registry"):
        data.ours(row, "measurement")
    node = data.outside(WORDS)
    assert node.astext() == plain_text(WORDS)


def test_long_words_may_break_and_others_not(extension):
    data, _ = extension
    node = data.outside("short " + "w" * 10_000 + " short")
    assert [child.astext()[:6] for child in node.children] == ["short ", "wwwwww", " short"]
    assert node.children[1]["classes"] == ["long"]


def test_html_holds_values_as_text(extension):
    data, _ = extension
    markup = data.raw('<a href="{url}">{label}</a>', url='"><script>', label="</a>\x1b[1m{x}").astext()
    assert markup == '<a href="&quot;&gt;&lt;script&gt;">&lt;/a&gt;{x}</a>'


@pytest.mark.fault(
    "Text from outside",
    "A title holds braces, backslashes or dollar signs",
    "Its BibTeX entry shows them literally, and its braces pair",
)
def test_bibtex_fields_are_text(extension):
    _, bibtex = extension
    assert bibtex.tex(r"\input{x} $y$ 5% #1 a_b ^ ~ }") == (
        r"\textbackslash{}input\textbraceleft{}x\textbraceright{} \$y\$ 5\% \#1 a\_b "
        r"\textasciicircum{} \textasciitilde{} \textbraceright{}"
    )


@pytest.mark.fault(
    "Text from outside",
    "The address of the repository is javascript: or anything else that is no web address",
    "The build stops and names the variable; no button leads there",
)
def test_address_of_the_repository_is_a_web_address(extension, monkeypatch, tmp_path):
    import companion

    (tmp_path / "_record").mkdir()
    state = {"version": "<b>", "commit": None, "no_commit": "", "dirty": False, "profile": "\x1b[1m<i>"}
    (tmp_path / "_record/site.json").write_text(json.dumps(state))
    app, options = SimpleNamespace(srcdir=tmp_path), {}
    config = SimpleNamespace(html_theme_options=options)
    monkeypatch.setenv("ICA_REPOSITORY_URL", "https://example.org/r")
    companion.configure(app, config)
    assert options["repository_url"] == "https://example.org/r"
    assert "Version &lt;b&gt;, no commit, profile &lt;i&gt;." in options["extra_footer"]
    monkeypatch.setenv("ICA_REPOSITORY_URL", "javascript:alert(1)")
    with pytest.raises(
        companion.ConfigError, match="ICA_REPOSITORY_URL: 'javascript:alert\\(1\\)' is no address"
    ):
        companion.configure(app, config)


# What a cell may leave on a page


@pytest.mark.fault(
    "Text from outside",
    "A cell leaves HTML, markdown, LaTeX or a widget beside its text, or an error that it was allowed to raise",
    "The page shows the text",
)
def test_outputs_become_text():
    text = plain_text(WORDS)
    for output in (
        new_output("stream", name="stdout", text=WORDS),
        new_output("stream", name="stderr", text=WORDS),
        new_output("error", ename="E", evalue=WORDS, traceback=[WORDS]),
        new_output("execute_result", {"text/plain": WORDS, "text/html": WORDS}, metadata={"tags": [WORDS]}),
        new_output("display_data", {"text/plain": WORDS, "text/markdown": WORDS, "image/svg+xml": WORDS}),
        new_output(
            "display_data", {"text/plain": WORDS, "application/vnd.jupyter.widget-view+json": {"x": 1}}
        ),
        new_output("display_data", {"text/plain": WORDS, "image/png": WORDS}),
    ):
        clean = stage.clean_output(output, "")
        assert clean.get("text") == text or clean.data == {"text/plain": text} and clean.metadata == {}
    image = new_output("display_data", {"image/png": PNG, "text/plain": "<Figure>"}, metadata={"x": 1})
    assert stage.clean_output(image, "").data == {"image/png": PNG}


@pytest.mark.fault(
    "Text from outside",
    "A cell leaves HTML, markdown, LaTeX or a script and no text, or glues anything but a number or text",
    "The build stops and names notebook and cell",
)
@pytest.mark.parametrize(
    "kind", ["text/html", "text/markdown", "text/latex", "application/javascript", "image/svg+xml"]
)
def test_outputs_that_a_page_would_obey_are_refused(kind):
    where = "notebook name: cell odd"
    nameless = {kind: WORDS, "text/plain": "<IPython.core.display.Thing object>"}
    for data in (nameless, {kind: WORDS}):
        with pytest.raises(ValueError, match=f"^{where} shows '{re.escape(kind)}'.*Print it, or record"):
            stage.clean_output(new_output("display_data", data), where)
    scrap = {"scrapbook": {"name": "key", "mime_prefix": ""}}
    for data in ({kind: WORDS}, {GLUE: "[1]"}, {GLUE: "f()"}, {GLUE: "(" * 10**5}):
        with pytest.raises(ValueError, match=f"^{where} glues 'key', which is no number or text"):
            stage.clean_output(new_output("display_data", data, metadata=scrap), where)


def test_glued_numbers_and_texts_stay():
    scrap = {"scrapbook": {"name": "a_b.c-1", "mime_prefix": "application/papermill.record/"}}
    for value in (3, -0.125, 1e-5, "'5'", '"', WORDS):
        output = new_output(
            "display_data", {GLUE: repr(value), "text/html": WORDS}, metadata=scrap | {"x": 1}
        )
        clean = stage.clean_output(output, "")
        kept = " ".join(plain_text(value).split("\n")) if isinstance(value, str) else value
        assert ast.literal_eval(clean.data.pop(GLUE)) == kept and not clean.data and clean.metadata == scrap


# What a site takes of a record


@pytest.mark.fault(
    "Text from outside",
    "A record's folder holds files that no Record writes, or a link that leads out of it",
    "The site has the files of the record alone; the link stops the build, named",
)
def test_site_takes_the_files_of_a_record_and_no_other(tmp_path):
    folder, site, outer = tmp_path / "record", tmp_path / "site", tmp_path / "outer.json"
    names = {f"{kind}/an-id{suffix}" for kind, ends in record.KNOWN.items() for suffix in ends} | set(
        record.LISTS
    )
    outer.write_text("secret")
    for name in (
        *names,
        "other.txt",
        "figures/an-id.html",
        "figures/UP.svg",
        "tables/deep/an-id.csv",
        ".hidden",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    stage.copy_record(folder, site)
    assert {file.relative_to(site).as_posix() for file in site.rglob("*.*") if file.is_file()} == names
    assert figures.SUFFIXES == record.KNOWN["figures"]
    for link, target in (("figures/a-link.json", outer), ("timed/away", tmp_path)):
        (folder / link).symlink_to(target)
        with pytest.raises(ValueError, match=f"{link}: a record holds files, not links"):
            stage.copy_record(folder, tmp_path / "again")
        (folder / link).unlink()
    (tmp_path / "linked").symlink_to(folder)
    with pytest.raises(ValueError, match="linked: a record holds files, not links"):
        stage.copy_record(tmp_path / "linked", tmp_path / "again")
