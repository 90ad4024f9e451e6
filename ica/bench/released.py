"""The authors' released code, from a checkout that the reader names: its own functions, imported and not copied.

It imports packages that what is timed here does not call (`ABSENT`); where one is not installed, an object that answers to any name
stands in its place while the code is imported.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import transformers

from ica.record.parameters import shown
from ica.record.provenance import git

FOLDER = "synthetic_experiment"
OWN = ("curriculum", "models", "samplers", "schema", "tasks", "train")
ABSENT = ("funcy", "quinine", "sklearn", "sklearn.linear_model", "sklearn.svm", "wandb", "xgboost")


def checkout(given: str) -> Path | None:
    """The checkout that the setting names, None where it is empty; ValueError where the folder is no such checkout."""
    if not given.strip():
        return None
    root = Path(given).expanduser()
    lacking = [name for name in OWN if not (root / FOLDER / f"{name}.py").is_file()]
    if lacking:
        raise ValueError(
            f"RELEASED: {shown(given)} is no checkout of the released code: {FOLDER}/{lacking[0]}.py is not there; accepted: "
            "the folder of a clone, or nothing"
        )
    return root.resolve()


def commit(root: Path) -> str | None:
    """The checkout's commit."""
    return git(root, "rev-parse", "--verify", "HEAD")


def modules(root: Path) -> SimpleNamespace:
    """The checkout's modules by name, `train`, `models`, `tasks` and so on.

    Raises:
        ImportError: one of them cannot be imported, named with the checkout.
    """
    _ = transformers.GPT2Model, transformers.GPT2Config  # before anything stands in a package's place
    absent = [name for name in ABSENT if importlib.util.find_spec(name.partition(".")[0]) is None]
    before = {name: sys.modules.pop(name, None) for name in OWN}
    sys.modules.update({name: MagicMock() for name in absent})
    sys.path.insert(0, str(root / FOLDER))
    try:
        found: dict[str, ModuleType] = {name: importlib.import_module(name) for name in OWN}
    except Exception as error:
        raise ImportError(
            f"RELEASED: the code in {root} cannot be imported ({type(error).__name__}: {error})"
        ) from error
    finally:
        sys.path.remove(str(root / FOLDER))
        for name in (*absent, *OWN):
            sys.modules.pop(name, None)
        sys.modules.update({name: module for name, module in before.items() if module})
    return SimpleNamespace(**found)
