"""The drawn workflow is that of the Snakefile, as Snakemake itself reads it."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ica.build import graph

ROOT = Path(__file__).parents[2]
SNAKEFILE = (ROOT / "Snakefile").read_text(encoding="utf-8")


def test_every_rule_is_there_and_needs_what_it_reads():
    found = graph.edges(SNAKEFILE)
    assert list(found) == re.findall(r"^rule (\w+):", SNAKEFILE, re.MULTILINE)
    assert found["site"] == {"claims", "execute"} and found["claims"] == {"execute"}
    assert found["execute"] == {"train", "read", "fetch"} and found["read"] == {"fetch"}
    assert (
        found["keep"] == {"train"} and found["stored"] == {"keep"} and found["ladder"] == {"read", "attack"}
    )


def test_a_rule_that_reads_the_output_of_another_needs_it():
    text = 'x = 1\n\nrule a:\n    output:\n        f"{OUT}/a/{{name}}.x",\n\n\nrule b:\n    input:\n        lambda w: [f"build/a/{n}.x" for n in w],\n        "c/d",\n    shell:\n        "run {OUT}/a/x.x"\n'
    assert graph.edges(text) == {"a": set(), "b": set()}
    assert graph.edges(text.replace("build/a", "{OUT}/a")) == {"a": set(), "b": {"a"}}


def test_as_snakemake_reads_it(sources):
    """For the rules of the small project's book; the real one has more of them."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "--nolock", "all"]
    done = subprocess.run(command, cwd=sources, capture_output=True, text=True, check=True)
    names = dict(re.findall(r'(\d+)\[label = "(\w+)"', done.stdout))
    theirs = {(names[a], names[b]) for a, b in re.findall(r"(\d+) -> (\d+)", done.stdout)}
    ours = {(a, b) for b, needs in graph.edges(SNAKEFILE).items() for a in needs}
    assert theirs and theirs == {(a, b) for a, b in ours if {a, b} <= set(names.values())}


def test_what_follows_is_not_drawn():
    needs = {"a": {"b", "c"}, "b": {"c", "d"}, "c": {"d"}, "d": set(), "e": {"d"}}
    assert graph.direct(needs) == {"a": {"b"}, "b": {"c"}, "c": {"d"}, "d": set(), "e": {"d"}}
    assert graph._columns(needs) == [["d"], ["c", "e"], ["b"], ["a"]], "the way of the first rule is on top"


@pytest.mark.parametrize("suffix", [".svg", ".dark.svg"])
def test_the_drawing_has_a_box_for_each_rule_and_no_box_on_another(suffix):
    drawing = ElementTree.fromstring(graph.drawings(SNAKEFILE)[suffix])
    space = "{http://www.w3.org/2000/svg}"
    assert sorted(text.text for text in drawing.iter(f"{space}text")) == sorted(graph.edges(SNAKEFILE))
    width, height = map(float, drawing.get("viewBox").split()[2:])
    places = [(float(box.get("x")), float(box.get("y"))) for box in drawing.iter(f"{space}rect")]
    assert len(set(places)) == len(places)
    for x, y in places:
        assert 0 < x < x + graph.BOX[0] < width and 0 < y < y + graph.BOX[1] < height
    arrows = [path for path in drawing.iter(f"{space}path") if path.get("marker-end")]
    assert len(arrows) == sum(map(len, graph.direct(graph.edges(SNAKEFILE)).values()))
