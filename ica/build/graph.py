"""The workflow as a graph: rules of the Snakefile, which needs which, and a drawing of that for the page on how the book is made.

A rule needs another if one of its inputs is, but for what stands in braces, an output of the other. The drawing needs no program.
"""

import re
from html import escape

from ica.record.figures import dark
from ica.record.styles import BACKGROUND, FOREGROUND, MUTED

RULE = re.compile(r"^rule (\w+):\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^    (\w+):(.*?)(?=^    \w|\Z)", re.MULTILINE | re.DOTALL)
BOX, GAP = (92, 30), (48, 22)  # width and height of a rule, room beside and below, in px


def _patterns(section: str) -> set[str]:
    """The paths that a section names, what stands in braces as *."""
    return {re.sub(r"\{+[^}]*\}+", "*", text) for text in re.findall(r'"([^"\n]*/[^"\n]*)"', section)}


def edges(snakefile: str) -> dict[str, set[str]]:
    """Rule -> the rules that it needs, in the order of the file."""
    sections = {name: dict(SECTION.findall(body)) for name, body in RULE.findall(snakefile)}
    made = {name: _patterns(found.get("output", "")) for name, found in sections.items()}
    return {
        name: {other for other, there in made.items() if there & _patterns(found.get("input", ""))}
        for name, found in sections.items()
    }


def direct(needs: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same without what follows: a rule that another needed one needs already."""

    def all_of(name: str) -> set[str]:
        return needs[name].union(*(all_of(other) for other in needs[name]))

    return {name: of.difference(*(all_of(other) for other in of)) for name, of in needs.items()}


def _columns(needs: dict[str, set[str]]) -> list[list[str]]:
    """Rules by how many others must come before; what the first rule rests on stands first, the farthest from it on top."""

    def depth(name: str) -> int:
        return max((depth(other) + 1 for other in needs[name]), default=0)

    def distance(name: str, end: str) -> int:
        """Longest way from a rule to one that needs it, negative where there is none."""
        if name == end:
            return 0
        ways = [distance(name, other) for other in needs[end]]
        return max((way + 1 for way in ways if way >= 0), default=-1)

    first = next(iter(needs))
    return [
        sorted((name for name in needs if depth(name) == k), key=lambda name: -distance(name, first))
        for k in range(max(map(depth, needs)) + 1)
    ]


def svg(needs: dict[str, set[str]]) -> str:
    """The graph, from left to right, in the colours of the light theme."""
    needs = direct(needs)
    columns, (width, height), (beside, below) = _columns(needs), BOX, GAP
    at = {
        name: (10 + k * (width + beside), 10 + row * (height + below))
        for k, column in enumerate(columns)
        for row, name in enumerate(column)
    }
    size = (
        10 + len(columns) * (width + beside) - beside + 10,
        10 + max(map(len, columns)) * (height + below),
    )
    lines, boxes = [], []
    for name, (x, y) in at.items():
        for other in sorted(needs[name]):
            x1, y1, y2 = at[other][0] + width, at[other][1] + height / 2, y + height / 2
            bend = (x - x1) / 2
            curve = f"M{x1} {y1}C{x1 + bend} {y1} {x - bend} {y2} {x} {y2}"
            lines.append(f'<path d="{curve}" fill="none" stroke="{MUTED}" marker-end="url(#tip)"/>')
        boxes.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="{BACKGROUND}" '
            f'stroke="{FOREGROUND}"/><text x="{x + width / 2}" y="{y + height / 2 + 5}" '
            f'text-anchor="middle" fill="{FOREGROUND}">{escape(name)}</text>'
        )
    tip = (
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" fill="{MUTED}"/></marker></defs>'
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" '
    head += (
        f'width="{size[0] * 0.75:g}pt" height="{size[1] * 0.75:g}pt" font-family="sans-serif" font-size="15">'
    )
    return f"{head}{tip}{''.join(lines)}{''.join(boxes)}</svg>"


def drawings(snakefile: str) -> dict[str, str]:
    """Suffix -> drawing, for both themes."""
    light = svg(edges(snakefile))
    return {".svg": light, ".dark.svg": dark(light)}
