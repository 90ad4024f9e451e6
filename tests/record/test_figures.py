"""The figure helper: what is saved, that it is the same every time, and what is refused."""

import hashlib
import io
import json
import re
from datetime import UTC, datetime

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from ica.record import figures
from ica.record.provenance import provenance

DATA = pd.DataFrame({"c": [1, 2, 3], "error": [0.1, 1 / 3, float("nan")], "kind": ["a", "b", "ü"]})


@pytest.fixture(autouse=True)
def closed():
    figures.style()
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def source() -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ICA_COMMIT", "0123abc")
        return provenance("demo", {"prompts": 3}, [1, 2], datetime.now(UTC))


def drawing():
    """Each kind of mark: lines, a band, hatched bars, cells, a colour bar, an arrow, black text."""
    fig, (left, middle, right) = plt.subplots(1, 3)
    left.plot(range(3), [1, 0.1, 0.01], label="$e^{-c}$")
    figures.band(left, [0, 1, 2], [0.5, 0.05, 0.005], [2, 0.2, 0.02], label="interval")
    left.set(yscale="log", xlabel="sharpness $c$", title="lines")
    left.legend()
    for bar, hatch in zip(middle.bar(range(3), [1, 2, 3]), figures.HATCHES, strict=False):
        bar.set_hatch(hatch)
    middle.annotate("here", (1, 1), (1, 2.5), arrowprops={"arrowstyle": "->"}, color="black")
    mesh = figures.heatmap(right, torch.tensor([[1.0, 0.0], [-2.0, 1e-6]]), ["x", "y"], ["r", "m"])
    figures.colourbar(mesh, "weight")
    return fig


def test_same_figure_same_bytes_with_metadata_in_every_file(tmp_path, source):
    first = figures.save(drawing(), tmp_path / "1", "demo", DATA, "A <title> & more", source)
    second = figures.save(drawing(), tmp_path / "2", "demo", DATA, "A <title> & more", source)
    assert set(first) == set(figures.SUFFIXES)
    for suffix in figures.SUFFIXES:
        assert first[suffix].name == "demo" + suffix
        assert first[suffix].read_bytes() == second[suffix].read_bytes(), suffix
    assert sorted(p.name for p in (tmp_path / "1").iterdir()) == sorted("demo" + s for s in figures.SUFFIXES)

    for suffix in (".svg", ".dark.svg"):
        svg = first[suffix].read_text()
        assert "<dc:title>A &lt;title&gt; &amp; more</dc:title>" in svg
        assert "<dc:source>notebook demo</dc:source>" in svg
        assert "commit 0123abc; version ica 0.1.0; licence CC BY 4.0" in svg
        assert "<dc:date>" not in svg and "<text" not in svg and "<image" not in svg
    text = Image.open(first[".png"]).text
    assert text["Title"] == "A <title> & more" and text["Commit"] == "0123abc"
    assert text["Source"] == "notebook demo" and text["Copyright"] == "CC BY 4.0"
    assert Image.open(first[".png"]).size == (1440, 800)
    pdf = first[".pdf"].read_bytes()
    assert b"notebook demo; figure demo; commit 0123abc; version ica 0.1.0; licence CC BY 4.0" in pdf
    assert b"CreationDate" not in pdf


def test_csv_reads_back_exactly_and_json_names_it(tmp_path, source):
    meaning = {"error": "relative error, no unit"}
    paths = figures.save(drawing(), tmp_path, "demo", DATA, "Title", source, columns=meaning)
    raw = paths[".csv"].read_bytes()
    assert raw == "c,error,kind\n1,0.1,a\n2,0.3333333333333333,b\n3,,ü\n".encode()
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(raw)), DATA)
    about = json.loads(paths[".json"].read_text())
    assert about["csv_sha256"] == hashlib.sha256(raw).hexdigest()
    assert about["columns"]["error"] == {"type": "float64", "meaning": "relative error, no unit"}
    assert about["provenance"]["parameters"] == {"prompts": 3} and about["provenance"]["seeds"] == [1, 2]
    assert about["provenance"]["versions"]["torch"].startswith(torch.__version__.split("+")[0])


def test_dark_svg_is_the_light_one_with_every_colour_exchanged_but_those_of_heatmaps(tmp_path, source):
    paths = figures.save(drawing(), tmp_path, "demo", DATA, "Title", source)
    light, dark = paths[".svg"].read_text(), paths[".dark.svg"].read_text()
    for colour in (figures.FOREGROUND, figures.GRID, figures.BACKGROUND, figures.BLUE):
        assert colour in light and colour not in dark and figures.DARK[colour] in dark
    assert "#000000" not in dark
    root = re.search(r"<svg [^>]*>", dark).group()
    assert f'fill="{figures.DARK[figures.FOREGROUND]}"' in root  # black text has no fill of its own
    others = set(figures.HEX.findall(light)) - set(figures.DARK)
    assert others == {figures.COLD, figures.WARM} and others <= set(figures.HEX.findall(dark))


def test_heatmap_leaves_zero_blank_and_shows_the_faintest_weight():
    fig, ax = plt.subplots()
    mesh = figures.heatmap(ax, torch.tensor([[0.0, 1e-9], [-1e-9, 4.0]]), ["a", "b"], ["c", "d"])
    fig.canvas.draw()
    zero, faint, negative, full = mesh.to_rgba(mesh.get_array()).reshape(4, 4)
    assert zero[3] == 0
    assert faint[3] >= 0.1 and tuple(faint[:3]) == to_rgb(figures.COLD)
    assert negative[3] >= 0.1 and tuple(negative[:3]) == to_rgb(figures.WARM)
    assert full[3] == pytest.approx(0.75)
    assert [t.get_text() for t in ax.texts] == ["1e-09", "-1e-09", "4"]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert ax.get_ylim() == (2, 0)  # first row on top


@pytest.mark.parametrize(
    ("matrix", "options", "message"),
    [
        (np.eye(3), {}, r"one row per name.*\(3, 3\), 2 rows"),
        (np.array([[np.nan, 0], [0, 1]]), {}, "matrix must be finite"),
        (-np.eye(2), {"signed": False}, "no negative entry"),
        (np.eye(2), {"limit": 0}, "limit must be"),
    ],
)
def test_heatmap_refuses(matrix, options, message):
    with pytest.raises(ValueError, match=message):
        figures.heatmap(plt.subplots()[1], matrix, ["a", "b"], ["c", "d"], **options)


@pytest.mark.parametrize(("lo", "hi", "message"), [([0, 3], [1, 2], "x = 1"), ([0], [1], "shape of x")])
def test_band_refuses(lo, hi, message):
    with pytest.raises(ValueError, match=message):
        figures.band(plt.subplots()[1], [0, 1], lo, hi)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": "Fig_1"}, "id must match"),
        ({"id": "../up"}, "id must match"),
        ({"title": " "}, "title must be text"),
        ({"fig": "no figure"}, "fig must be a Matplotlib Figure, got str"),
        ({"data": DATA.iloc[:0]}, "at least one row"),
        ({"data": [1, 2]}, "must be a pandas DataFrame"),
        ({"data": pd.DataFrame({"a": [1.0, float("inf")]})}, r"data\['a'\] must not hold infinities"),
        ({"data": pd.DataFrame({"a": [np.float32("-inf")]}, dtype=object)}, "infinities"),
        ({"data": pd.DataFrame({"a": [[1]]})}, "numbers, truth values or text, got list"),
        ({"data": pd.DataFrame({1: [1]})}, "distinct texts as column names"),
        ({"data": DATA.set_index("kind")}, "reset_index"),
        ({"columns": {"errror": "typo"}}, "got 'errror'"),
    ],
)
def test_save_refuses_and_writes_nothing(tmp_path, source, change, message):
    arguments = {"fig": plt.figure(), "id": "demo", "data": DATA, "title": "Title", "columns": None} | change
    with pytest.raises(ValueError, match=message):
        figures.save(folder=tmp_path, provenance=source, **arguments)
    assert not list(tmp_path.iterdir())


def test_small_text_and_raster_images_are_refused(tmp_path, source):
    fig, ax = plt.subplots()
    small = ax.text(0, 0, "tiny", fontsize=7)
    with pytest.raises(ValueError, match=r"at least 9 pt.*'tiny' has 7\.0 pt"):
        figures.save(fig, tmp_path, "demo", DATA, "Title", source)
    small.set_fontsize(9)
    fig.set_figwidth(14.4)
    with pytest.raises(ValueError, match=r"has [45]\.\d pt"):
        figures.save(fig, tmp_path, "demo", DATA, "Title", source)
    fig, ax = plt.subplots()
    ax.imshow(np.eye(2))
    with pytest.raises(ValueError, match="no raster image"):
        figures.save(fig, tmp_path, "demo", DATA, "Title", source)
    assert not list(tmp_path.iterdir())


def test_a_figure_whose_texts_overprint_is_refused_by_name(tmp_path, source):
    fig, ax = plt.subplots()
    ax.text(0.2, 0.5, "the minimiser")
    other = ax.text(0.22, 0.505, "the transformer")
    with pytest.raises(ValueError, match="figure demo .*'the minimiser' overprints 'the transformer'"):
        figures.save(fig, tmp_path, "demo", DATA, "Title", source)
    assert not list(tmp_path.iterdir())
    other.set_position((0.2, 0.6))
    figures.save(fig, tmp_path, "demo", DATA, "Title", source)
