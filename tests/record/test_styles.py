"""One look for one thing: colours that can be seen in both themes and by colour-blind eyes, and what is drawn together."""

from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from ica.record import figures, styles

PAGE = {"light": styles.BACKGROUND, "dark": styles.DARK[styles.BACKGROUND]}
INK = {"light": styles.FOREGROUND, "dark": styles.DARK[styles.FOREGROUND]}
NOISE = {"p = 0", "p = 0.25", "p = 0.5", "p = 0.75", "p = 1"}
# Things that one plot draws together.
TOGETHER = {
    "panel a": {"transformer", "precomputed", "authors'", "gradient descent", "exact minimiser"}
    | {"best-of-n", "Bayes", "mean response"},
    "critics, stated": {
        "transformer",
        "noisy training labels",
        "true training labels",
        "trusting Bayes",
        "Bayes",
    }
    | {"mean response"},
    "rules, stated": {"gradient descent", "best-of-n", "trusting Bayes", "mean response", "Bayes"},
    "levels": NOISE,
    "depths": {"transformer", "quarter depth", "half depth", "three quarters depth", "exact minimiser"},
    "attention": {"transformer", "linear attention", "linear attention, unmasked", "exact minimiser"},
    "heads": {"transformer", "one head", "four heads", "six heads", "exact minimiser"},
    "heads, controlled": {"transformer", "one head", "one head, same width", "six heads", "exact minimiser"}
    | {"six heads, same width"},
    "FFN": {"transformer", "no FFN", "no FFN, unmasked", "no FFN, authors'", "exact minimiser"},
    "mask": {"transformer", "linear attention, unmasked", "no FFN, unmasked", "no FFN, authors'"},
    "floor": {"exact minimiser", "transformer", "stopped early", "best-of-n", "Bayes", "gradient descent"}
    | {"authors'"},
    "rewards": {"transformer", "squared-distance reward", "exact minimiser"},
    "tokens": {"interleaved tokens", "one token per triplet"},
    "readers": {"transformer", "noisy training labels", "true training labels", "mean response"}
    | {"slow learner", "flip noise"},
    "loop": {"one GD step", "exact minimiser", "transformer", "open loop", "start stays"},
    "rounds": {"construction", "GD, same rate", "GD, same length", "GD, rate by terms", "start stays"},
    "blocks": {"linear probe", "untrained model", "direct readout"},
    "readout": {"exact minimiser", "target y*", "gradient descent"},
    "plane": {"target y*", "distractor e", "exact minimiser"},
    "rules": {"transformer", "exact minimiser", "one GD step", "construction", "covariance rule", "Bayes"},
    "models": {"SmolLM2", "Gemma", "Qwen 0.5B", "Qwen 1.5B", "another model", "transformer", "chance"},
    "critics": {"first answer", "re-answer control", "self-critique", "oracle critic", "random critic"}
    | {"inverted critic"},
    "defences": {"no defence", "re-answer control", "self-reminder", "self-critique", "two self-critiques"}
    | {"oracle critic"},
    "verdicts": {"correct", "incorrect", "log-probability difference"},
    "judges": {"leaked", "no refusal", "stricter judge"},
}


@pytest.fixture(autouse=True)
def closed():
    figures.style()
    yield
    plt.close("all")


def linear(colour) -> np.ndarray:
    rgb = np.array(to_rgb(colour))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(one, other) -> float:
    """Contrast ratio of WCAG 2."""
    low, high = sorted(float([0.2126, 0.7152, 0.0722] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def over(rgba, page) -> np.ndarray:
    return rgba[3] * np.array(rgba[:3]) + (1 - rgba[3]) * np.array(to_rgb(page))


def themed(colour: str, theme: str) -> str:
    return colour if theme == "light" else styles.DARK[colour]


def test_contrast_is_the_known_one_of_black_on_white():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", PAGE)
def test_colours_can_be_seen_and_text_read(theme):
    drawn = {style.colour for style in styles.STYLES.values()} | {*styles.PALETTE, *styles.RAMP, styles.MUTED}
    for colour in drawn:
        assert contrast(themed(colour, theme), PAGE[theme]) >= 4.5, colour
    assert contrast(INK[theme], PAGE[theme]) >= 7
    for colours in (figures.SEQUENTIAL, figures.DIVERGING):
        for rgba in colours(np.linspace(0, 1, 256)):
            assert contrast(over(rgba, PAGE[theme]), INK[theme]) >= 4.5, rgba


# Full dichromacy in linear RGB: Machado, Oliveira, Fernandes (2009), protan, deutan, tritan.
EYES = {
    "usual": np.eye(3),
    "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritan": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


def oklab(light) -> np.ndarray:
    lms = [[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]
    lab = [[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]]
    return np.array(lab) @ np.cbrt(np.clip(np.array(lms) @ np.clip(light, 0, 1), 0, None))


@pytest.mark.parametrize("theme", PAGE)
@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("colours", [styles.PALETTE, styles.RAMP], ids=["palette", "ramp"])
def test_colours_stay_distinct_to_colour_blind_eyes(colours, eye, theme):
    seen = [oklab(np.array(EYES[eye]) @ linear(themed(c, theme))) for c in colours]
    gaps = [np.linalg.norm(a - b) for a, b in combinations(seen, 2)]
    assert min(gaps) >= 0.1  # about five just noticeable differences


def test_levels_in_order_go_from_strong_to_faint_in_both_themes():
    for theme, page in PAGE.items():
        strength = [contrast(themed(c, theme), page) for c in styles.RAMP]
        assert strength[0] == max(strength) and strength[-1] == min(strength)


def test_line_style_and_marker_change_with_the_colour():
    _, ax = plt.subplots()
    lines = [ax.plot([0, 1], [i, i])[0] for i in range(len(styles.PALETTE))]
    for look in ("get_color", "get_marker"):
        assert len({getattr(line, look)() for line in lines}) == len(lines)
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == len(lines)


def test_no_two_things_look_alike_and_each_can_be_drawn():
    assert len(set(styles.STYLES.values())) == len(styles.STYLES)
    assert not set(styles.ALIASES) & set(styles.STYLES) and set(styles.ALIASES.values()) <= set(styles.STYLES)
    _, ax = plt.subplots()
    for name in (*styles.STYLES, *styles.ALIASES):
        (line,) = ax.plot([0, 1], [0, 1], label=name, **figures.style_of(name))
        assert line.get_linestyle() != "None" or line.get_marker() != ""


def test_what_one_plot_draws_differs_in_colour_and_in_line_and_marker():
    covered = set()
    for plot, names in TOGETHER.items():
        covered |= {styles.ALIASES.get(name, name) for name in names}
        for one, other in combinations(sorted(names), 2):
            first, second = styles.style_of(one), styles.style_of(other)
            assert first["color"] != second["color"], (plot, one, other)
            looks = [(look["linestyle"], look["marker"]) for look in (first, second)]
            assert looks[0] != looks[1], (plot, one, other)
    assert set(styles.STYLES) - covered == {"bound"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("minimiser", "'minimiser'; did you mean 'exact minimiser'"), ("xyzzy", "add it"), (3, "got 3")],
)
def test_an_unknown_thing_has_no_style(name, message):
    with pytest.raises(ValueError, match=message):
        styles.style_of(name)
