"""Colours of the figures, and one colour, line and marker for each thing that the book draws.

`STYLES` maps a thing to its style; `style_of("gradient descent")` gives the keywords for `ax.plot`. A thing looks the
same on every page. Two things in one plot differ in colour, and in line or marker as well; a colour comes again only
for things that no plot draws together. Every colour has at least 4.5 to 1 on the page of its theme: a light figure is
drawn, and `DARK` names the colour that replaces each of its own in the dark one.
"""

from difflib import get_close_matches
from typing import NamedTuple

FOREGROUND, MUTED, GRID, BACKGROUND = "#1a1b1d", "#5a5c60", "#d9dadc", "#ffffff"
BLUE, RUST, CYAN, VIOLET, OCHRE, ROSE = "#3652af", "#953800", "#06819b", "#9145f1", "#957100", "#dd1378"
PALETTE = (BLUE, RUST, CYAN, VIOLET, OCHRE, ROSE, FOREGROUND)
RAMP = ("#2a0a4a", "#3a2e85", "#50557f", "#2c7d6d", "#707a0d")  # levels in order, by lightness
DARK = {FOREGROUND: "#f0efed", MUTED: "#a9abaf", GRID: "#3a3b3d", BACKGROUND: "#121212", "#000000": "#f0efed"}
DARK |= {
    BLUE: "#617afc",
    RUST: "#ed813c",
    CYAN: "#48d1d1",
    VIOLET: "#c591ff",
    OCHRE: "#e0c830",
    ROSE: "#ff408d",
}
DARK |= dict(zip(RAMP, ("#f4e6ff", "#c9bcff", "#a69cdc", "#5ab695", "#858f20"), strict=True))

SOLID, DASHED, DOTTED, DASH_DOT = "-", (0, (5, 1.5)), (0, (1.2, 1.4)), (0, (5, 1.5, 1.2, 1.5))
LONG, DOTS_DASH, SPARSE = (0, (8, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (1.2, 3))
LINES = (SOLID, DASHED, DOTTED, DASH_DOT, LONG, DOTS_DASH, SPARSE)
MARKERS = ("o", "s", "^", "D", "v", "X", "P")
HATCHES = ("", "///", "...", "\\\\\\", "xxx", "---")


class Style(NamedTuple):
    """Colour, line style and marker of one thing."""

    colour: str
    line: str | tuple
    marker: str


STYLES: dict[str, Style] = {
    # Part II: who predicts.
    "transformer": Style(BLUE, SOLID, "o"),
    "precomputed": Style(VIOLET, DASH_DOT, "D"),
    "authors'": Style(FOREGROUND, "", "X"),
    "gradient descent": Style(RUST, DASHED, "s"),
    "GD, same length": Style(OCHRE, LONG, "^"),
    "GD, rate by terms": Style(ROSE, DOTTED, "X"),
    "one GD step": Style(RUST, DOTTED, "8"),
    "exact minimiser": Style(ROSE, LONG, "v"),
    "best-of-n": Style(CYAN, DOTTED, "^"),
    "Bayes": Style(OCHRE, DOTS_DASH, "P"),
    "trusting Bayes": Style(ROSE, DASH_DOT, "X"),
    "mean response": Style(MUTED, SPARSE, "<"),
    # Other architectures and other training.
    "quarter depth": Style(OCHRE, DOTTED, "^"),
    "half depth": Style(CYAN, DASHED, "s"),
    "three quarters depth": Style(VIOLET, LONG, "D"),
    "linear attention": Style(OCHRE, DASHED, "s"),
    "linear attention, unmasked": Style(MUTED, DASH_DOT, "D"),
    "one head": Style(VIOLET, DASHED, "s"),
    "one head, same width": Style(OCHRE, DASH_DOT, "X"),
    "four heads": Style(OCHRE, LONG, "D"),
    "six heads": Style(CYAN, DASH_DOT, "v"),
    "six heads, same width": Style(MUTED, DOTTED, "d"),
    "no FFN": Style(CYAN, LONG, "D"),
    "no FFN, unmasked": Style(VIOLET, DOTTED, "v"),
    "no FFN, authors'": Style(OCHRE, SOLID, "h"),
    "stopped early": Style(MUTED, DASHED, "d"),
    "squared-distance reward": Style(CYAN, SOLID, "p"),
    "one token per triplet": Style(CYAN, DASHED, "h"),
    "interleaved tokens": Style(OCHRE, SOLID, "p"),
    "noisy training labels": Style(VIOLET, SOLID, "s"),
    "true training labels": Style(CYAN, DASHED, "P"),
    "flip noise": Style(FOREGROUND, DOTTED, "d"),
    "open loop": Style(OCHRE, DOTTED, "D"),
    "start stays": Style(MUTED, DOTTED, "s"),
    # Inside the transformer, and the plane of a prompt.
    "linear probe": Style(VIOLET, SOLID, "D"),
    "direct readout": Style(CYAN, LONG, "s"),
    "untrained model": Style(MUTED, DOTTED, "v"),
    "target y*": Style(OCHRE, DASHED, "*"),
    "distractor e": Style(VIOLET, DOTTED, "h"),
    "construction": Style(CYAN, DASH_DOT, "p"),
    "covariance rule": Style(VIOLET, DASHED, "^"),
    # Levels in order: the probability p that a critic's word is replaced.
    "p = 0": Style(RAMP[0], SOLID, "o"),
    "p = 0.25": Style(RAMP[1], DASHED, "s"),
    "p = 0.5": Style(RAMP[2], DOTTED, "^"),
    "p = 0.75": Style(RAMP[3], DASH_DOT, "D"),
    "p = 1": Style(RAMP[4], LONG, "v"),
    # Part III: models.
    "SmolLM2 135M": Style(VIOLET, DASHED, "o"),
    "Gemma 3 270M (base)": Style(OCHRE, DOTTED, "s"),
    "Qwen2.5-Coder 0.5B": Style(RUST, DASH_DOT, "^"),
    "Qwen2.5-Coder 1.5B": Style(CYAN, SOLID, "D"),
    "another model": Style(FOREGROUND, LONG, "v"),
    # Answers, by what the model was told after its first; the defences among them.
    "first answer": Style(FOREGROUND, SOLID, "o"),
    "re-answer control": Style(MUTED, DASHED, "s"),
    "self-critique": Style(BLUE, DASH_DOT, "^"),
    "oracle critic": Style(ROSE, DASHED, "D"),
    "random critic": Style(OCHRE, SPARSE, "X"),
    "inverted critic": Style(RUST, DOTTED, "v"),
    "self-reminder": Style(OCHRE, LONG, "P"),
    "two self-critiques": Style(VIOLET, DOTS_DASH, "<"),
    # Verdicts and answers that are right or not, and their difference; three judges of an attack.
    "correct": Style(CYAN, DASHED, "o"),
    "incorrect": Style(RUST, DASHED, "X"),
    "log-probability difference": Style(VIOLET, SOLID, "P"),
    "leaked": Style(ROSE, SOLID, "o"),
    "no refusal": Style(OCHRE, DASHED, "^"),
    "stricter judge": Style(CYAN, DOTTED, "D"),
    # Lines to compare with.
    "chance": Style(MUTED, DOTTED, ""),
    "bound": Style(MUTED, DASHED, ""),
}
ALIASES = {
    **dict.fromkeys(("small", "softmax attention", "full depth", "three heads", "with FFN"), "transformer"),
    "GD": "gradient descent",
    "GD, same rate": "gradient descent",
    "slow learner": "quarter depth",
    "no defence": "first answer",
    "one self-critique": "self-critique",
    "bias review": "self-critique",
    "oracle review": "oracle critic",
    "instruction control": "self-reminder",
    "SmolLM2": "SmolLM2 135M",
    "Gemma": "Gemma 3 270M (base)",
    "Qwen 0.5B": "Qwen2.5-Coder 0.5B",
    "Qwen 1.5B": "Qwen2.5-Coder 1.5B",
}


def style_of(name: str) -> dict[str, str | tuple]:
    """Colour, line style and marker of a thing of `STYLES` (or `ALIASES`), as keywords for `ax.plot`.

    ValueError for a name that is not there, with those that look like it.
    """
    found = STYLES.get(ALIASES.get(name, name))
    if found is None:
        near = get_close_matches(str(name), [*STYLES, *ALIASES], n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(map(repr, near))}?" if near else "add it there first"
        raise ValueError(f"name must be one of ica.record.styles.STYLES, got {name!r}; {hint}")
    return {"color": found.colour, "linestyle": found.line, "marker": found.marker}
