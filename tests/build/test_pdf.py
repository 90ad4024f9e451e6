"""The site as one PDF: pages in order, links inside the file, figures whole; and one line where it cannot be."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ica.build import browser, pdf

ROOT = Path(__file__).parents[2]
HEAD = (
    '<html><head><link rel="stylesheet" href="{up}_static/companion.css">'
    '<script>window.MathJax = {{"options": {{"processHtmlClass": "math"}}}}</script>'
    '<script defer src="{up}_static/mathjax/tex-chtml.js"></script></head><body><article class="bd-article">{body}</article>'
    '<div class="extra_footer"><p>Version 1, commit abc</p></div></body></html>'
)
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="{w}" height="{h}"><rect width="{w}" height="{h}" fill="teal"/></svg>'
FIGURE = '<figure class="recorded" id="fig-{name}"><img class="only-light" loading="lazy" src="_figures/{name}.svg"><img class="only-dark" src="none.svg"><figcaption>Caption</figcaption></figure>'
PAGES = {
    "start": "<h1>Start here</h1><p>See <a href='sub/two.html#deep'>the second</a>, <a href='data.csv'>data</a>, "
    "<a href='#inside'>what is folded</a> and <a href='https://example.org/'>outside</a>.</p>"
    "<details class='x'><summary>More</summary><p id='inside'>hidden words</p></details>"
    "<div class='dropdown note admonition'><p class='admonition-title'>Aside</p><div>hidden words</div></div>"
    "<div class='dropdown proof admonition'><p class='admonition-title'>Proof</p><div>words of a proof</div></div>",
    "one": "<h1>1. One with \\(x\\)</h1>"
    + "".join(f"<p>{'word ' * 150}</p>" + FIGURE.format(name="tall") for _ in range(3))
    # The drawing of a cell that comes after words at the end of a page: it moves to the next one, whole.
    + f"<p>{'word ' * 150}</p><div style='height: 600px'></div>"
    + "<div class='cell_output'><pre>said</pre><img src='_figures/tall.svg'></div>",
    "sub/two": "<h1>2. Two &amp; more</h1><div class='math'>\\[ x^2 = "
    + " + ".join(f"x_{{{k}}}" for k in range(30))
    + " \\]</div><h2 id='deep'>Deep</h2><table class='companion'><tr>"
    + "<td>cell&nbsp;cell&nbsp;cell</td>" * 12
    + "</tr></table>",
}
TOC = "format: jb-book\nroot: start\nparts:\n  - caption: Part\n    chapters:\n      - file: one\n      - file: sub/two\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A site of three pages, as far as printing looks at it."""
    root = tmp_path_factory.mktemp("printed")
    book = root / "build" / "book"
    (book / "_static").mkdir(parents=True)
    (book / "sub").mkdir()
    (book / "_figures").mkdir()
    mathjax = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    (book / "_static" / "mathjax").symlink_to(mathjax)
    shutil.copy(ROOT / "book/_static/companion.css", book / "_static")
    (book / "_figures/tall.svg").write_text(SVG.format(w=500, h=700))
    for name, body in PAGES.items():
        (book / f"{name}.html").write_text(HEAD.format(up="../" * name.count("/"), body=body))
    (book / "index.html").write_text("start")
    (root / "_toc.yml").write_text(TOC)
    (root / "_config.yml").write_text("title: A small <book>\nauthor: Somebody\n")
    return root


@pytest.fixture(scope="module")
def printed(project) -> pdf.Printed:
    if browser.chromium() is None:
        pytest.skip("no Chromium here")
    parts = pdf.contents(project)
    assert parts == [("", ["start"]), ("Part", ["one", "sub/two"])]
    site = project / "build" / "book"
    return pdf.render(site, parts, pdf.about(project, site))


@pytest.mark.slow
def test_pages_are_in_order_and_whole(printed):
    assert pdf.findings(printed) == []
    assert printed.titles == ["Start here", "1. One with \\(x\\)", "2. Two & more"]
    assert printed.starts == sorted(printed.starts) and printed.starts[0] == 3 and printed.figures == 4
    reader = pdf._reader(printed.content)
    words = [page.extract_text() for page in reader.pages]
    assert "A small <book>" in words[0] and "Version 1, commit abc" in words[0]
    assert "Contents" in words[1] and str(printed.starts[2]) in words[1].split()
    assert "hidden words" not in "".join(words) and words[2].count("opens on the site") == 2
    assert "words of a proof" in words[2], "proofs stand open"
    assert words[5].split()[-1] == "6", "the page's number ends it"
    assert [one.title for one in reader.outline if not isinstance(one, list)][:2] == [
        "A small <book>",
        "Contents",
    ]


@pytest.mark.slow
def test_what_is_whole_is_put_in_place(printed, project, monkeypatch):
    monkeypatch.setattr(pdf, "render", lambda *_: printed)
    said, file = pdf.make(project).splitlines()
    assert said.startswith(f"{len(pdf._reader(printed.content).pages)} pages, 4 figures, ")
    assert file == str(project / "build/book.pdf") and Path(file).read_bytes() == printed.content


@pytest.mark.slow
def test_links_stay_in_the_file(printed):
    reader = pdf._reader(printed.content)
    found = [one.get_object() for page in reader.pages for one in page.get("/Annots", [])]
    outside = {one["/A"]["/URI"] for one in found if "/A" in one and "/URI" in one["/A"]}
    assert outside == {"https://example.org/"}, "no link to a file that the reader has not"
    inside = {str(one["/Dest"]).lstrip("/") for one in found if "/Dest" in one}
    assert {"p-start", "p-one", "p-sub-two", "p-sub-two--deep"} <= inside
    assert any(name.startswith("fold-") for name in inside), "a link into a folded part leads to its title"


@pytest.mark.slow
def test_a_figure_that_is_cut_is_found_and_the_earlier_file_stays(project, tmp_path):
    if browser.chromium() is None:
        pytest.skip("no Chromium here")
    root = Path(shutil.copytree(project, tmp_path / "project", symlinks=True))
    page = root / "build/book/one.html"
    page.write_text(
        page.read_text()
        .replace('class="recorded"', 'style="break-inside: auto"')
        .replace('class="only-light"', 'style="height: 1500px; width: 300px"')
    )
    (root / "build/book.pdf").write_bytes(b"earlier")
    with pytest.raises(ValueError, match="figure 1 is cut: it begins on page"):
        pdf.make(root)
    assert (root / "build/book.pdf").read_bytes() == b"earlier"


@pytest.mark.slow
def test_what_fits_at_no_size_is_found(project, tmp_path):
    if browser.chromium() is None:
        pytest.skip("no Chromium here")
    site = Path(shutil.copytree(project / "build/book", tmp_path / "book", symlinks=True))
    page = site / "start.html"
    page.write_text(
        page.read_text().replace(
            "<details", "<img src='_figures/tall.svg' style='min-width: 3000px'><details"
        )
    )
    found = pdf.render(site, [("", ["start"])], pdf.about(project, site))
    assert found.wide == ["p-start, img: "] and "wider than the page: p-start, img: " in pdf.findings(found)


def test_what_a_title_may_lose_on_paper():
    assert pdf.letters("1. The ﬁrst \\(x^2\\) – page") == "1Thefirstpage"


def call(folder: Path, **more: str) -> str:
    command = [sys.executable, "-m", "ica.build.pdf"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **more)
    assert done.returncode == 1 and done.stdout == ""
    return done.stderr.strip()


def test_one_line_where_there_is_no_site_or_no_chromium(sources):
    if browser.chromium():
        assert call(sources) == "build/book is not there: run `make book` first"
    assert call(sources, env={"PATH": "/nowhere"}).startswith("Chromium is missing: none of chromium,")
    assert not (sources / "build").exists()
