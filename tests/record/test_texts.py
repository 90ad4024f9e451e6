"""Texts as drawn: what overprints, touches, hides or is cut is named, and what can be read is not."""

import time

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from ica.record import figures, texts


@pytest.fixture(autouse=True)
def closed():
    figures.style()
    yield
    plt.close("all")


def crowded():
    """A figure with what matplotlib often draws near other texts: twins, shared axes, legends, cells, maths."""
    fig, axes = plt.subplots(2, 2, figsize=(7.2, 5.6), sharex="col")
    axes[0, 0].plot([0, 1], [1e-9, 1], label=r"$\hat y$")
    axes[0, 0].set(yscale="log", title="a title\nof two lines", ylabel="error $1 - \\cos$")
    axes[0, 0].legend(title="a legend over data")
    axes[0, 0].twinx().set_ylabel("a second axis")
    figures.heatmap(axes[0, 1], np.eye(4) / 3, list("abcd"), ["w", "x", "y", "z"])
    axes[1, 0].set(xlabel="n", xticks=range(2), xlim=(0, 1))
    axes[1, 1].set_axis_off()
    axes[1, 1].set_xlabel("an axis that is switched off")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center")
    return fig


def test_a_figure_that_can_be_read_has_no_faults():
    fig = crowded()
    hidden = fig.axes[0].text(0.5, 0.5, "hidden")
    fig.axes[0].text(0.5, 0.5, "shown")
    hidden.set_visible(False)
    fig.axes[0].text(0.5, 0.5, " ")
    fig.axes[0].text(9, 0.5, "outside of the limits, clipped", clip_on=True)
    fig.axes[0].annotate("outside of the limits", (9, 0.5), annotation_clip=True)
    assert figures.overprints(fig) == []


def test_texts_that_overprint_are_named_once():
    fig, ax = plt.subplots()
    ax.text(0.5, 0.5, "one")
    ax.text(0.51, 0.5, "another")
    assert figures.overprints(fig) == ["'one' overprints 'another'"]


def test_tick_labels_that_run_into_one_another():
    fig, ax = plt.subplots(figsize=(3, 2))
    ax.set_xticks(range(6), ["a rather long name"] * 6)
    assert "'a rather long name' overprints 'a rather long name'" in figures.overprints(fig)


@pytest.mark.parametrize("turn", [30, 45, 60, 90, -45])
def test_turned_labels_are_boxes_that_are_turned(turn):
    fig, ax = plt.subplots()
    anchor = {"rotation_mode": "anchor", "ha": "right" if turn > 0 else "left", "va": "center"}
    ax.set_xticks(range(12), ["a rather long name"] * 12, rotation=turn, **anchor)
    assert figures.overprints(fig) == []
    ax.set_xlim(0, 100)  # labels 5 points apart, less than a text is high
    assert figures.overprints(fig)


@pytest.mark.parametrize(("gap", "expected"), [(3, []), (1, ["'below it' touches 'a title'"])])
def test_a_title_must_not_even_touch(gap, expected):
    fig = plt.figure()
    fig.set_layout_engine("none")
    ax = fig.add_axes((0.1, 0.1, 0.8, 0.6))
    title = ax.set_title("a title", pad=40)
    with texts.watched() as drawn:
        fig.savefig("/dev/null", format="svg")
    ax.annotate("below it", (40, drawn[title][:, 1].min() - gap), xycoords="figure points", va="top")
    assert figures.overprints(fig) == expected


def test_a_legend_hides_the_text_below_it():
    fig, ax = plt.subplots()
    ax.plot([0, 1], label="a curve with a long name")
    ax.text(0.02, 0.95, "x", transform=ax.transAxes)
    legend = ax.legend(loc="upper left")
    assert "'x' is hidden by the legend with 'a curve with a long name'" in figures.overprints(fig)
    legend.set_frame_on(False)
    assert figures.overprints(fig) == []


@pytest.mark.parametrize("place", [(0.99, 0.5), (-0.02, 0.5), (0.5, 0.99)])
def test_text_cut_by_the_edge(place):
    fig = plt.figure()
    fig.text(*place, "far out")
    assert figures.overprints(fig) == ["'far out' is cut by the edge of the figure"]


def test_watching_leaves_matplotlib_as_it_was_and_costs_little():
    before, fig = Text.draw, plt.figure(figsize=(7.2, 7.2))
    ax = fig.add_subplot()
    figures.heatmap(ax, np.full((15, 15), 0.25), list("abcdefghijklmno"), list("abcdefghijklmno"))
    with pytest.raises(RuntimeError), texts.watched():
        raise RuntimeError
    assert Text.draw is before
    with texts.watched() as drawn:
        fig.savefig("/dev/null", format="svg")
    start = time.perf_counter()
    assert texts.faults(fig, drawn) == [] and len(drawn) == 15 * 15 + 30
    assert time.perf_counter() - start < 0.5  # some 0.02 s on one free core
