"""Texts of a figure: any name can be drawn; which of them overprint another, are hidden by a legend, or are cut.

Positions are noted while Matplotlib draws the SVG (its pixel is a point), so hidden axes, ticks beyond the limits and
what else is never drawn do not count, and no second drawing is needed.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from functools import wraps

import numpy as np
from jaxtyping import Float
from matplotlib import cbook
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text

from ica.record.outside import plain_text

SLACK = 0.5  # points on each side of a text that may be covered: its box has room for the tallest letters
CLEAR = 1.0  # points around titles and axis labels, and around what is next to them; Matplotlib itself leaves four
CORNERS = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)])
PARSER = MathTextParser("path")  # one for all texts: each takes a tenth of a second to make
Box = Float[np.ndarray, "corners=4 xy=2"]


def _drawable(words: object) -> str:
    """The text without control characters, and with its dollar signs literal where they enclose no formula."""
    words = plain_text(str(words))
    if cbook.is_math_text(words):
        try:
            PARSER.parse(words)
        except (ValueError, RecursionError):
            return re.sub(r"(?<!\\)\$", r"\\$", words)
    return words


@contextmanager
def plain(fig: Figure) -> Iterator[None]:
    """While the block runs, whatever text the figure holds, or gives its ticks as they are drawn, is one that can be drawn."""
    set_text = Text.set_text

    @wraps(set_text)
    def drawable(self: Text, words: object) -> None:
        set_text(self, words if words is None else _drawable(words))

    Text.set_text = drawable
    try:
        for text in fig.findobj(Text):
            text.set_text(text.get_text())
        yield
    finally:
        Text.set_text = set_text


def _corners(text: Text, renderer: object) -> Box:
    """Corners of the text's box, turned as the text is."""
    box = Text.get_window_extent(text, renderer)  # an annotation's own includes its arrow
    size, turn = box.size, text.get_rotation()
    if turn % 90 and not text.get_transform_rotates_text():
        flat = copy(text)
        flat.set_rotation(0)
        size = Text.get_window_extent(flat, renderer).size
    else:
        turn = 0
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    return (box.min + box.max) / 2 + CORNERS * size @ np.array([[cos, sin], [-sin, cos]])


def _shows(text: Text) -> bool:
    return text.get_visible() and bool(text.get_text().strip()) and text.get_alpha() != 0


@contextmanager
def watched() -> Iterator[dict[Text, Box]]:
    """Notes each text that is drawn while the block runs, in order, with its corners in the last drawing."""
    drawn, draw, last = {}, Text.draw, None

    @wraps(draw)
    def noted(self: Text, renderer: object, *args: object, **options: object) -> None:
        nonlocal last
        draw(self, renderer, *args, **options)
        if renderer is not last:  # a figure is laid out with one renderer, then drawn with another
            drawn.clear()
            last = renderer
        clip = self.get_clip_box() if self.get_clip_on() else None
        if _shows(self) and (clip is None or clip.overlaps(Text.get_window_extent(self, renderer))):
            drawn[self] = _corners(self, renderer)

    Text.draw = noted
    try:
        yield drawn
    finally:
        Text.draw = draw


def _headings(fig: Figure) -> set[Text]:
    """Titles and axis labels, which must not even touch another text."""
    found = set(fig.texts)
    for ax in fig.axes:
        found |= {child for child in ax.get_children() if isinstance(child, Text)} - set(ax.texts)
        found |= {ax.xaxis.label, ax.yaxis.label}
    return found


def _shrunk(box: Box, by: float) -> Box:
    """The box with each of its sides moved inwards, at most to its middle line; outwards for `by` < 0."""
    middle = box.mean(0)
    sides = box[[1, 3]] - box[0]
    lengths = np.linalg.norm(sides, axis=1)
    half = np.maximum(lengths / 2 - by, 0.0)[:, None] * sides / np.maximum(lengths, 1e-9)[:, None]
    return middle + CORNERS * 2 @ half


def _apart(one: Box, other: Box) -> bool:
    """Whether a line along a side of one of the boxes separates them."""
    for box in (one, other):
        for side in (box[1] - box[0], box[3] - box[0]):
            a, b = one @ side, other @ side
            if a.max() <= b.min() or b.max() <= a.min():
                return True
    return False


def _near(boxes: Float[np.ndarray, "n corners=4 xy=2"]) -> list[tuple[int, int]]:
    """Pairs whose upright bounding boxes, with room around them, overlap."""
    lo, hi = boxes.min(1) - CLEAR, boxes.max(1) + CLEAR
    meet = (lo[:, None] < hi[None]).all(-1)
    return np.argwhere(np.triu(meet & meet.T, 1)).tolist()


def _hidden(fig: Figure, drawn: dict[Text, Box]) -> Iterator[str]:
    """Texts below the frame of a legend that is drawn later."""
    places = {text: place for place, text in enumerate(drawn)}
    for legend in fig.findobj(Legend):
        own = {text for text in legend.findobj(Text) if text in drawn}
        if not own or not legend.get_frame_on():
            continue
        (x0, y0), (x1, y1) = legend.get_frame().get_bbox().get_points()
        frame, first = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]), min(places[text] for text in own)
        for text, box in drawn.items():
            if text not in own and places[text] < first and not _apart(_shrunk(box, SLACK), frame):
                yield f"{_name(text)} is hidden by the legend with {_name(min(own, key=places.get))}"


def _name(text: Text) -> str:
    words = " ".join(text.get_text().split())
    return repr(words if len(words) <= 40 else words[:39] + "…")


def faults(fig: Figure, drawn: dict[Text, Box]) -> list[str]:
    """What is wrong with the texts that `watched` noted, one phrase each; [] where all can be read."""
    texts, found = list(drawn), []
    if not texts:
        return found
    boxes, headings = np.stack([drawn[text] for text in texts]), _headings(fig)
    edge = fig.get_size_inches() * 72
    for text, box in drawn.items():
        inner = _shrunk(box, SLACK)
        if (inner < 0).any() or (inner > edge).any():
            found.append(f"{_name(text)} is cut by the edge of the figure")
    for i, j in _near(boxes):
        touching = texts[i] in headings or texts[j] in headings
        slack = -CLEAR if touching else SLACK
        if not _apart(_shrunk(boxes[i], slack), _shrunk(boxes[j], slack)):
            verb = "touches" if touching else "overprints"
            found.append(f"{_name(texts[i])} {verb} {_name(texts[j])}")
    return found + list(_hidden(fig, drawn))
