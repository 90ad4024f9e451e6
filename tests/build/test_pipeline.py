"""The pipeline for real: papermill, Snakemake and Jupyter Book on a small project (see `small_project`)."""

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import small_project
import yaml
from small_project import build, edit, executed, run_make

from ica.build import notebooks

SUFFIXES = ("svg", "pdf", "png", "csv", "json")


def page(folder: Path, name: str) -> str:
    return (folder / "build/book" / f"{name}.html").read_text()


def words(markup: str) -> str:
    """The text of a page's article, or of a piece of one, in one line; entities stay."""
    article = markup.split("<article")[-1].split("</article>")[0]
    text = re.sub("<[^>]*>", " ", re.sub("</?(span|a|strong|em)( [^>]*)?>", "", article))
    return " ".join(text.replace("\u00a0", " ").split())


def module(name: str, folder: Path, *arguments: str) -> None:
    """Run a module of the project in its folder, to a good end."""
    command = [sys.executable, "-m", name, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# What a build does


def test_change_of_prose_runs_no_notebook_and_a_broken_reference_publishes_nothing(project):
    before = page(project, "notebooks/gamma")
    edit(project, "gamma", "end", "## End\n\nNew words, and {ref}`nowhere`.")
    failed = build(project)
    assert failed.returncode != 0 and executed(failed) == []
    last = failed.stdout.splitlines()[-1]
    assert last.startswith("notebooks/gamma.ipynb: cell end: WARNING") and "nowhere" in last
    assert page(project, "notebooks/gamma") == before

    edit(project, "gamma", "end", "## End\n\nNew words.")
    (project / "book/intro.md").write_text("# Start\n\nAnother start, {cite}`key`, of five words.\n")
    done = build(project)
    assert done.returncode == 0, done.stdout
    assert executed(done) == []
    assert "New words." in page(project, "notebooks/gamma") and "Another start" in page(project, "book/intro")


@pytest.mark.slow
def test_change_of_a_module_runs_exactly_the_notebooks_that_import_it(project):
    (project / "ica/two.py").write_text("VALUE = 6\n")
    done = build(project)
    assert done.returncode == 0, done.stdout
    assert executed(done) == ["beta"]
    claims = {row["id"]: row for row in json.loads((project / "build/claims.json").read_text())}
    assert claims["beta-parts"]["verdict"] == "supported"  # it was "mixed" with 2 for 6
    assert claims["alpha-small"]["measurement"]["parts"]["value"]["value"] == 1


@pytest.mark.slow
def test_failing_cell_ends_the_build_with_its_report_and_the_next_build_resumes(project):
    before = {name: page(project, f"notebooks/{name}") for name in ("alpha", "gamma")}
    edit(project, "gamma", "work", "values = []\nvalues[seed]")
    edit(project, "alpha", "claim", small_project.CLAIM_CELLS["alpha"].replace("VALUE**2", "VALUE + 1"))
    failed = run_make(project, "book")
    lines = failed.stdout.splitlines()
    assert failed.returncode != 0
    assert lines[-1] == "IndexError: list index out of range"
    assert "Notebook notebooks/gamma.ipynb failed in cell 5 of 7 (id work)." in lines
    assert "    values[seed]" in lines and "\x1b" not in failed.stdout
    assert {name: page(project, f"notebooks/{name}") for name in before} == before
    assert not list((project / "build/ci").glob(".*-*")), "a scratch folder was left"

    edit(project, "gamma", "work", "print(seed)")
    done = run_make(project, "book")
    assert done.returncode == 0, done.stdout
    assert executed(done) == ["gamma"]  # alpha was done in the build that failed
    assert "VALUE + 1" in re.sub("<[^>]*>", "", page(project, "notebooks/alpha"))


@pytest.mark.slow
def test_other_parameters_are_told_on_the_page_and_the_injected_cell_never_appears(project):
    done = build(project, "--profile", "paper", "--set", "seed=3")
    assert done.returncode == 0, done.stdout
    assert executed(done) == ["alpha", "beta", "gamma"]
    text = re.sub("<[^>]*>", "", page(project, "notebooks/alpha"))
    assert "This page was run with other values" in text
    assert "seed = 3 (in the cell: 0)" in text and "scale = 2 (in the cell: 1.5)" in text
    ran = nbformat.read(project / "build/paper/executed/alpha.ipynb", as_version=4)
    assert notebooks.tagged(ran, "injected-parameters")
    assert "# Parameters" not in text
    stored = nbformat.read(project / "build/paper/site/notebooks/alpha.ipynb", as_version=4)
    assert not notebooks.tagged(stored, "injected-parameters")
    assert json.loads((project / "build/paper/record/gamma/run.json").read_text())["parameters"] == {
        "seed": 3
    }


def test_unknown_parameter_stops_before_anything_runs(sources):
    done = build(sources, "--set", "sede=3")
    assert done.returncode != 0
    assert (
        done.stdout.strip()
        == "SET: no notebook declares the parameter 'sede'; did you mean seed? accepted: scale, seed"
    )
    assert not (sources / "build").exists()


# What the site holds


def test_figure_and_its_box_have_all_files(built):
    text = page(built, "notebooks/alpha")
    assert '<figure class="recorded align-default" id="fig-alpha-curve">' in text
    assert text.count('alt="A falling curve"') == 2 and "Fig. 1.1" in text
    box = text[text.index('<details class="cite">') :].split("</details>")[0]
    links = re.findall(r'href="\.\./(_figures/[^"]+)" download', box)
    assert sorted(links) == sorted(f"_figures/alpha/alpha-curve.{suffix}" for suffix in SUFFIXES)
    assert '<a href="../_figures/alpha/alpha-curve.svg#dark">' in box, "opened, not saved"
    assert all((built / "build/book" / link).stat().st_size > 100 for link in links[:3])
    assert (built / "build/book/_figures/alpha/alpha-curve.csv").read_text().startswith("step,error\n")
    entry = html.unescape(re.sub("<[^>]*>", "", box))
    assert "@misc{ica-fig-alpha-curve" in entry and r"A curve of 100\% \& more\_things" in entry
    assert "Figure 1.1 (alpha-curve) of notebook alpha, version 0.1.0, commit" in entry


def test_table_is_set_in_its_formats(built):
    text = page(built, "notebooks/alpha")
    table = text[text.index('id="tab-alpha-table"') :]
    cells = re.findall(r'<td class="number"><p><span>([^<]*)', table)
    assert cells == ["0", "1.0e+00", "1", "5.0e−01", "2", "2.5e−01"]
    assert (built / "build/book/_tables/alpha/alpha-table.csv").is_file()


def test_text_of_a_model_is_shown_and_never_obeyed(built):
    text = page(built, "notebooks/alpha")
    table = text[text.index('id="tab-alpha-said"') :].split("</table>")[0]
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; \\(x\\) {ref}`none` **loud**" in table
    assert "&lt;img src=x onerror=alert(1)&gt;" in table
    assert "<script" not in table and "<img" not in table and "math" not in table


def test_claims_link_to_the_cell_that_recorded_them(built):
    ledger, alpha = page(built, "book/claims"), page(built, "notebooks/alpha")
    assert 'href="../notebooks/alpha.html#claim-alpha-small"' in ledger
    after = alpha[alpha.index('id="claim-alpha-small"') :]
    assert "record.claim" in words(after[:700])
    assert r"\(x^2\)" in ledger and "<small>" not in ledger and "<b>" not in ledger
    assert "The number \\(x^2\\) &amp; co. is &lt;small&gt; &lt;b&gt;or&lt;/b&gt; not." in words(ledger)


def test_ledger_has_a_table_for_each_page_and_one_of_changed_criteria(built):
    ledger = words(page(built, "book/claims"))
    for told in (
        "Small Page alpha: 2 supported 2 claims of alpha Claim Test Measured Verdict After BH",
        "Criterion: ≤ 10 1 (3 cases) ✔ supported –",
        "Criterion: above 0 by 0.1 Why: a tenth is what one sees 0.50 [0.30, 0.70] (5 seeds, 64 prompts) ✔ supported yes",
        "Page beta: 1 mixed 1 claim of beta",
        "Criterion: n = 2: ≤ 1; n = 15: ≥ 5 n = 2: 0 ✔ n = 15: 2 ✘ ◐ mixed (1 of 2 parts) –",
        "beta-parts before any run The bound of \\(n = 15\\) was 4. mixed ◐ mixed (1 of 2 parts)",
    ):
        assert told in ledger


def test_head_of_a_page_asks_and_answers_by_the_verdicts(built):
    head = words(page(built, "notebooks/alpha"))
    told = r"""Question. Is \(x^2\) small? Paper: Thm 1 (T1); Fig. 1 (S1). Answer
        The number \(x^{2}\) is small, 1.0. ✔ supported It goes up. ✔ supported Three cases; see Page beta."""
    assert " ".join(told.split()) in head
    assert "Question. Do the parts hold? The paper does not ask this." in words(page(built, "notebooks/beta"))
    assert "Holds in 1 of 2 parts: One part holds, the other does not. ◐ mixed (1 of 2 parts)" in words(
        page(built, "notebooks/beta")
    )


def test_roles_say_what_the_claims_came_to(built):
    prose = words(page(built, "notebooks/alpha"))
    assert (
        r"In short: The number \(x^{2}\) is small, 1.0. ✔ supported. It rose by 0.50 [0.30, 0.70]," in prose
    )
    assert (
        "elsewhere 2 (✘ contradicted, as a whole ◐ mixed (1 of 2 parts)); not so not measured: Not" in prose
    )


def test_reason_of_an_untestable_claim_is_shown_and_never_obeyed(built):
    reason = html.escape(small_project.REASON, quote=False)
    for name, times in (("notebooks/gamma", 2), ("notebooks/alpha", 1), ("book/claims", 1)):
        article = page(built, name).split("<article")[1].split("</article>")[0]
        assert article.count(reason) == times, name
    answer = words(page(built, "notebooks/gamma"))
    assert f"Not testable here: A large model does it. Reason: {reason} – not testable here" in answer


def test_every_claim_of_the_paper_stands_on_the_first_page(built):
    first = page(built, "book/intro")
    rows = [words(row) for row in re.findall(r"<tr.*?</tr>", first, re.DOTALL)]
    assert [row.split()[0] for row in rows] == ["Where", *(item["id"] for item in small_project.PAPER)]
    assert rows[1] == (
        r"T1 Thm 1 The number \(x^2\) is &lt;small&gt;. What 1 test found, and the scale Here: "
        r"3 cases. Paper: exact, two numbers. alpha-small as stated ✔ supported The number \(x^{2}\) is small, 1.0. "
        "✔ supported as stated page, figure"
    )
    assert rows[2] == (
        "S1 Fig. 1 It holds. What 2 tests found, and the scale Paper: one run. Our data. beta-parts analogue ◐ mixed "
        "Holds in 1 of 2 parts: One part holds, the other does not. alpha-up beyond the paper, against ✔ supported "
        "◐ mixed analogue: 1 of 2 parts supported page"
    )
    assert rows[3] == "L1 Sec. 5 It will always hold. Why not tested Paper: argued. · not tested page"
    assert 'href="../notebooks/alpha.html#fig-alpha-curve"' in first
    items = json.loads((built / "build/paper_claims.json").read_text())
    assert [item["verdict"] for item in items] == ["supported", "mixed", "not tested"]


def test_another_measurement_turns_sentence_and_badge_on_page_and_first_page(project):
    record = project / "build/ci/record/alpha/claims.json"
    measured = json.loads(record.read_text())
    measured[0]["parts"]["value"]["value"] = 99
    measured[1]["parts"]["value"] |= {"value": 0.0, "interval": [-0.05, 0.05]}
    record.write_text(json.dumps(measured))
    out = project / "build/ci"
    ledgers = ["--out", f"{out}/claims.json", "--paper", f"{out}/paper_claims.json"]
    module("ica.build.ledger", project, *map(str, sorted((out / "record").iterdir())), *ledgers)
    module("ica.build.site", project, "build/ci")
    alpha, first = ((out / f"html/{name}.html").read_text() for name in ("notebooks/alpha", "book/intro"))
    assert "The number is <strong>large</strong>, 99.0. " in alpha and "is small" not in alpha
    head = words(alpha)
    assert "large, 99.0. ✘ contradicted No effect that matters: It goes up. ≈ negligible" in head
    assert "In short: The number is large, 99.0. ✘ contradicted" in head
    assert "alpha-small as stated ✘ contradicted The number is large, 99.0. ✘ contradicted" in words(first)
    assert "Of 3 claims: 1 contradicted, 1 mixed, 1 not tested." in words(first)


def test_faults_of_claims_on_a_page_fail_the_build_and_are_all_named(project):
    before = page(project, "notebooks/gamma")
    edit(
        project,
        "gamma",
        "title",
        "# Page gamma\n\n```{question} T1 T9\nWhy?\n```\n\n```{answer} gamma-none no-such-claim\n```\n\n"
        "{says}`nobody` {says}`beta-parts/n = 2` {verdict}`beta-parts/n = 3` {measured}`beta-parts`\n",
    )
    item = small_project.PAPER[0] | {"figure": "no-figure"}
    (project / "ica/record/paper.yml").write_text(yaml.safe_dump([item, *small_project.PAPER[1:]]))
    failed = build(project)
    assert failed.returncode != 0 and executed(failed) == []
    for message in (
        "question: 'T9' is no claim of the paper; accepted: T1, S1, L1",
        "answer: no run recorded claim 'no-such-claim'; this page records: gamma-none",
        "says: no run recorded claim 'nobody'",
        "says: a sentence is of a whole claim, got 'beta-parts/n = 2'",
        "verdict: claim beta-parts has no part 'n = 3'; accepted: n = 2, n = 15",
        "measured: claim beta-parts has several parts; name one of n = 2, n = 15",
    ):
        assert f"notebooks/gamma.ipynb: cell title: ERROR: {message}" in failed.stdout
    message = "paper-claims: T1: notebooks/alpha records no figure 'no-figure'; accepted: alpha-curve"
    assert f"ERROR: {message}" in failed.stdout
    assert page(project, "notebooks/gamma") == before


def test_numbers_in_prose_come_from_the_run(built):
    assert "the number is 0.125." in re.sub("<[^>]*>", "", page(built, "book/intro"))


def test_site_needs_no_network_and_offers_the_notebook_with_its_code_as_stored(built):
    for file in (built / "build/book").rglob("*.html"):
        loaded = re.findall(
            r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="(https?:[^"]*)"', file.read_text()
        )
        assert not loaded, file
        assert file.read_text().count("const THEBE_JS_URL") <= 1
    mathjax = built / "build/book/_static/mathjax"
    assert (mathjax / "tex-chtml.js").is_file() and list(
        (mathjax / "output/chtml/fonts/woff-v2").glob("*.woff")
    )
    files = (built / "build/book/_sources/notebooks/alpha.ipynb", built / "notebooks/alpha.ipynb")
    offered, stored = (
        [cell for cell in nbformat.read(file, as_version=4).cells if cell.cell_type == "code"]
        for file in files
    )
    assert offered[0].id == "needs-ica" and offered[1:] == stored


def test_page_tells_how_it_was_run(built):
    text = re.sub("<[^>]*>", "", page(built, "notebooks/gamma"))
    box = text[text.index("How this page was run") :]
    assert "notebooks/gamma.ipynb" in box and "seed = 0" in box and "torch" in box


def test_launch_buttons_only_where_an_address_is_known(built):
    assert "mybinder.org" not in page(built, "notebooks/alpha")
