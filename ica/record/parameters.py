"""What the parameters of each notebook accept, so that a wrong value is refused by its own name before anything runs.

The build asks `fault` of profiles and settings; `Record` and the first cell of a notebook ask `checked` of what they run with. The
largest accepted values are far above those of any profile; beyond them memory or time does not suffice anywhere.
"""

import difflib
import math
import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 60
LONGEST = 100  # characters of a value in a message


class ParametersError(ValueError):
    """A parameter is not declared, or its value is not accepted; the message names both, and what is accepted."""


@dataclass(frozen=True)
class Rule:
    """What a parameter accepts: in words, and as a test of any value."""

    says: str
    fits: Callable[[object], bool]


def _is_whole(value: object, least: int, most: int) -> bool:
    return type(value) is int and least <= value <= most


def _is_number(value: object, above: float, most: float) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and above < value <= most


def _rises(values: object, count: int, fits: Callable[[object], bool]) -> bool:
    return (
        isinstance(values, list | tuple)
        and count <= len(values) <= 100
        and all(map(fits, values))
        and all(a < b for a, b in pairwise(values))
    )


def whole(least: int, most: int) -> Rule:
    """A whole number, which no truth value is."""
    return Rule(f"a whole number of {least} to {most}", lambda value: _is_whole(value, least, most))


def number(most: float) -> Rule:
    """A number above 0."""
    return Rule(f"a number above 0, at most {most:g}", lambda value: _is_number(value, 0, most))


def rising(least: int, most: int, count: int = 1) -> Rule:
    """A list of increasing whole numbers, `count` of them or more."""
    says = f"a list of {count} or more increasing whole numbers of {least} to {most}"
    return Rule(says, lambda value: _rises(value, count, lambda one: _is_whole(one, least, most)))


def numbers(most: float, count: int = 1) -> Rule:
    """A list of increasing numbers above 0, `count` of them or more."""
    says = f"a list of {count} or more increasing numbers above 0, at most {most:g}"
    return Rule(says, lambda value: _rises(value, count, lambda one: _is_number(one, 0, most)))


def seeds(count: int) -> Rule:
    """A list of different seeds, `count` of them or more."""
    return Rule(
        f"a list of {count} to 100 different whole numbers of 0 to {SEED}",
        lambda value: (
            isinstance(value, list | tuple)
            and count <= len(value) <= 100
            and all(_is_whole(one, 0, SEED) for one in value)
            and len(set(value)) == len(value)
        ),
    )


def one_of(*names: str) -> Rule:
    """One of some texts."""
    return Rule(f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names)


def _is_text(value: object) -> bool:
    return (
        isinstance(value, str)
        and bool(value.strip())
        and len(value) <= 4096
        and not re.search("[\0\ud800-\udfff]", value)
    )


SEED = 10**6
SHARE = Rule("a number above 0 and below 1", lambda value: _is_number(value, 0, 1) and value < 1)
SEEDED = {"seed": whole(0, SEED)}
SCALE = {"scale": one_of("ci", "paper")}
NAME = Rule("a name or a path, of at most 4096 characters", _is_text)
MODEL, ITEMS = {"model": NAME}, {"items": NAME}
MANY = whole(1, 100_000)
STUDY = {
    **{f"{task}_seeds": whole(6, 100) for task in ("bt", "pl")},
    **{f"{task}_steps": whole(100, 10**6) for task in ("bt", "pl")},
    "held_out": whole(100, 100_000),
    "gap": Rule(
        "a number above 0 and below 1/3", lambda value: _is_number(value, 0, 1 / 3) and value < 1 / 3
    ),
}
LAWS = {"steps": whole(1, 20), "pace": SHARE, "share": SHARE}

WIDTH = Rule("a multiple of 16, up to 1024", lambda value: _is_whole(value, 16, 1024) and value % 16 == 0)

# Notebook -> parameter -> what it accepts: every parameter that the notebook declares, and no other.
ACCEPTED: dict[str, dict[str, Rule]] = {
    "alignment": {"prompts": MANY, "sizes": rising(2, 256), "d": whole(2, 8)} | SEEDED,
    "bradley_terry": {"prompts": MANY, "d": whole(1, 64), "gaps": numbers(1, 2), "points": whole(6, 1000)}
    | {"eta": number(100)}
    | SEEDED,
    "plackett_luce": {"prompts": MANY, "sizes": rising(2, 128, 2), "features": rising(1, 64, 2)}
    | {"steps": whole(1, 100)}
    | SEEDED,
    "paper_construction": {"prompts": MANY, "sizes": rising(2, 32, 2), "gaps": numbers(1, 2)} | SEEDED,
    "explorable": SEEDED,
    "noisy_critic": {"prompts": MANY, "draws": whole(2, 10**5), "bridge_prompts": whole(20, 10**5)} | SEEDED,
    "many_steps": {"prompts": MANY, "steps": whole(2, 1000), "N": whole(2, 32), "d": whole(1, 64)}
    | {"sizes": rising(2, 256, 2)}
    | SEEDED,
    "minimiser": {"prompts": MANY, "paths": MANY, "d": whole(3, 64), "steps": whole(10_000, 10**7)} | SEEDED,
    "ablations": STUDY | {"return_steps": whole(100, 10**6)} | SEEDED,
    "linear_attention": STUDY | SEEDED,
    "heads": {"prompts": MANY, "Ns": rising(2, 128), "tries": whole(1, 1000)} | SEEDED,
    "depth": {"prompts": MANY, "Ns": rising(2, 128, 2), "ds": rising(1, 64), "steps": whole(1, 100)}
    | {"repeats": whole(2, 1000)}
    | SEEDED,
    "masks": {"prompts": MANY, "gaps": rising(16, 400, 2), "tries": whole(1, 1000)} | SEEDED,
    "several_queries": {"prompts": MANY} | LAWS | SEEDED,
    "causal": {"prompts": MANY, "repeats": whole(1, 1000)} | LAWS | SEEDED,
    "multi_turn": {"prompts": MANY, "given": whole(1, 16), "d": whole(1, 64), "rounds": whole(2, 40)}
    | {"eta": number(1)}
    | SEEDED,
    "panel_a": SCALE | SEEDED,
    "panel_b": SCALE | SEEDED | {"end_prompts": whole(2, 100_000)},
    **{f"panel_{letter}": SCALE for letter in "cdef"},
    "code_to_paper": {"descent_prompts": whole(2, 512), "steps_prompts": whole(2, 512)} | SEEDED,
    "floor": {"prompts": whole(2, 10**6), "descent_prompts": whole(2, 100_000)} | SCALE | SEEDED,
    "overtraining": {"descent_prompts": whole(2, 100_000), "held_out": whole(2, 100_000)}
    | {"training_steps": whole(1, 10**6), "every": whole(1, 10**6), "batch": whole(1, 10**4)}
    | {
        "rate": number(1),
        "layers": whole(1, 24),
        "width": WIDTH,
        "squared_steps": whole(100, 10**5),
    }
    | {"model_seeds": seeds(2)}
    | SEEDED,
    "released_code": SCALE
    | {"descent_prompts": whole(2, 100_000), "shown_prompts": whole(2, 100_000)}
    | SEEDED,
    "mechanism": SCALE
    | {"n": whole(2, 19), "also": whole(2, 19), "probe_prompts": whole(2, 100_000)}
    | {"jacobian_prompts": whole(2, 256), "steps": whole(1, 10**5)}
    | SEEDED,
    "critics": SCALE | {"prompts": whole(2, 256), "rounds": whole(1, 1000)} | SEEDED,
    "taught": MODEL | {"steps": whole(4, 1000)} | SEEDED,
    "llm_bbq": MODEL | ITEMS,
    "llm_selfcheck": MODEL | ITEMS | {"simulations": whole(1, 10**6)},
    "llm_drivers": MODEL | ITEMS,
    "llm_alignment": MODEL | ITEMS,
    "llm_paper": {"grader": one_of("released", "strict")},
    "llm_jailbreak": MODEL | {"attacks": whole(2, 72)},
}
# Parameters whose value is text whatever it looks like: a model may be named "true" or "1e3".
TEXTS = frozenset(name for rules in ACCEPTED.values() for name, rule in rules.items() if rule is NAME)


def meant(name: str, known: Iterable[str]) -> str:
    """What a misspelt name may have meant, as the end of a message, and the names that are accepted."""
    known = sorted(map(str, known), key=str.lower)
    near = difflib.get_close_matches(str(name), known, n=1)
    begun = f"did you mean {near[0]}? " if near else ""
    return f"{begun}accepted: {', '.join(known) or 'none'}"


def shown(value: object) -> str:
    """A value as it may stand in a message: short, in one line."""
    try:
        words = _REPR.repr(value)
        return words if len(words) <= LONGEST else f"{words[: LONGEST - 3]}..."
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return f"a very large {type(value).__name__}"


def fault(notebook: str, name: str, value: object) -> str:
    """What is wrong with the value of a notebook's parameter; empty if nothing is, or the notebook is not of this book."""
    rule = ACCEPTED.get(notebook, {}).get(name)
    if rule is None or rule.fits(value):
        return ""
    return f"parameter {name} of notebook {notebook} must be {rule.says}, got {shown(value)}"


def checked(notebook: str, values: Mapping[str, object]) -> dict[str, object]:
    """The values, if the notebook declares all these parameters and accepts these values.

    Raises:
        ParametersError: a parameter that it does not declare, or a value that it does not accept.
    """
    known = ACCEPTED.get(notebook)
    for name, value in values.items():
        if known is not None and name not in known:
            raise ParametersError(f"notebook {notebook} declares no parameter {name!r}; {meant(name, known)}")
        if wrong := fault(notebook, name, value):
            raise ParametersError(wrong)
    return dict(values)
