"""A project like this one, but with three tiny notebooks, to test the pipeline for real in seconds.

`alpha` imports `ica.one`; `beta` imports `ica.three`, which imports `ica.two`; `gamma` imports neither.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).parents[1]
COPIED = (
    "Snakefile",
    "_config.yml",
    "constraints.txt",
    "pyproject.toml",
    "ica/build",
    "ica/record",
    "book/_ext",
    "book/_static",
)
IMPORTS = {"alpha": "from ica.one import VALUE", "beta": "from ica import three", "gamma": ""}
MODULES = {"one": "VALUE = 1\n", "two": "VALUE = 2\n", "three": "from .two import VALUE\n"}
LEDGER = """# Claims

All the claims of this book.

```{all-claims}
```

## Criteria that changed

```{criteria-history}
```

## Faults

```{faults}
```

## Figures

```{gallery}
```

## Made

```{workflow}
The rules.
```

```{pages-made}
```

```{jobs-made}
```

```{results-stored}
```

```{bibliography}
```
"""
FAULTS = """import pytest


@pytest.mark.fault("Ends", "`make` is <b>killed</b>", "it goes on")
def test_ends():
    pass
"""
BIB = "@misc{key, title = {Title}, author = {Author, A.}, year = {2020}}\n"

CLAIMS = {
    "theory": [
        {
            "id": "alpha-small",
            "notebook": "alpha",
            "statement": "The number $x^2$ & co. is <small> <b>or</b> not.",
            "basis": "as stated",
            "measured": "the value of $x^2$",
            "criterion": {"op": "<=", "bound": 10.0},
            "says": {
                "supported": "The number $x^{{2}}$ is small, {value:.1f}.",
                "contradicted": "The number is **large**, {value:.1f}.",
            },
        },
        {
            "id": "alpha-up",
            "notebook": "alpha",
            "statement": "It goes up.",
            "basis": "beyond the paper",
            "measured": "a difference",
            "criterion": {"op": "above", "at": 0, "sesoi": 0.1},
            "unit": "seeds",
            "reason": "a tenth is what one sees",
            "setting": "1 block",
        },
    ],
    "synthetic": [
        {
            "id": "beta-parts",
            "notebook": "beta",
            "statement": "One part holds, the other does not.",
            "basis": "analogue",
            "measured": "two values",
            "criterion": {"parts": {"n = 2": {"op": "<=", "bound": 1}, "n = 15": {"op": ">=", "bound": 5}}},
            "fixed": "before any run",
            "changed": "The bound of $n = 15$ was 4.",
            "otherwise": "mixed",
        },
    ],
    "llm": [
        {
            "id": "gamma-none",
            "notebook": "gamma",
            "statement": "A large model does it.",
            "basis": "as stated",
            "measured": "nothing",
            "criterion": {"op": "<=", "bound": 1},
        },
    ],
}
PAPER = [
    {
        "id": "T1",
        "kind": "theorem",
        "place": "Thm 1",
        "claim": "The number $x^2$ is <small>.",
        "scale": "exact, two numbers",
        "tests": [{"claim": "alpha-small", "basis": "as stated"}],
        "page": "notebooks/alpha",
        "figure": "alpha-curve",
    },
    {
        "id": "S1",
        "kind": "experiment",
        "place": "Fig. 1",
        "claim": "It holds.",
        "scale": "one run",
        "tests": [
            {"claim": "beta-parts", "basis": "analogue"},
            {"claim": "alpha-up", "basis": "beyond the paper", "against": True},
        ],
        "page": "notebooks/beta",
        "note": "Our data.",
    },
    {
        "id": "L1",
        "kind": "statement",
        "place": "Sec. 5",
        "claim": "It will always hold.",
        "scale": "argued",
        "tests": None,
        "page": "notebooks/gamma",
    },
]
# What a model or a user may write: markup of the page, of the browser, of templates; and what steers a terminal.
HOSTILE = (
    "<script>window.hit = 1; alert(1)</script>",
    "</textarea></title></script></details></td></table></article><img src=x onerror='window.hit = 1'>",
    "<a href='javascript:window.hit=1'>link</a> [link](javascript:window.hit=1)",
    "{download}`file <../../../../secret.txt>` {download}`../secret.txt` [](../../../../secret.txt)",
    "![image](https://foreign.example/one.png) <https://foreign.example/>",
    "{ref}`nowhere` {doc}`nowhere` {glue:text}`nothing` {says}`nothing` (target)= [^note] [note]: # 'x'",
    "```{raw} html <script>window.hit = 1</script> ```",
    "{{ 7 * 191 }} {% for x in y %} {# note #} |today|",
    "$\\href{javascript:window.hit=1}{x}$ \\(y\\) $$z$$ \\begin{equation}q\\end{equation}",
    "\x1b[31mred\x1b[0m \x1b]8;;https://foreign.example/\x07linked\x1b]8;;\x07 bell\x07 nul\x00",
    "turned \u202e round, a word\u200b unseen, half \ud800 a pair",
    "w" * 10_000,
)
REASON = (
    "needs <b>more</b> {ref}`none` **memory**, $5 or $6 ![](https://foreign.example/x.png) [l](javascript:alert) "
    "{download}`x <../../../secret.txt>` {{ 7 * 6 }} </td></details> <script>alert(1)</script>"
)

ALPHA = """
import matplotlib.pyplot as plt, pandas as pd
data = pd.DataFrame({"step": [0, 1, 2], "error": [1.0, 0.5, 0.25]})
fig, ax = plt.subplots()
ax.plot(data["step"], data["error"])
ax.set(xlabel="step", ylabel="error")
record.figure("alpha-curve", fig, data, title="A curve of 100% & more_things")
record.table("alpha-table", data, title="A table", formats={"error": ".1e"})
said = pd.DataFrame({"said": ["<script>alert(1)</script> & \\\\(x\\\\) {ref}`none` **loud**", "<img src=x onerror=alert(1)>"]})
record.table("alpha-said", said, title="What a <model> said")
record.number("alpha-number", 0.125)
"""
WORK = {
    "alpha": ALPHA,
    "beta": r"print('\x1b[31mred\x1b[0m', chr(0), chr(0x202e), '<i>no</i>')",
    "gamma": "print(seed)",
}
CLAIM_CELLS = {
    "alpha": 'record.claim("alpha-small", value=VALUE**2, n=3)\n'
    'record.claim("alpha-up", value=0.5, interval=(0.3, 0.7), n={"seeds": 5, "prompts": 64})',
    "beta": 'record.claim("beta-parts", parts={"n = 2": {"value": 0}, "n = 15": {"value": three.VALUE}})',
    "gamma": f'record.untestable("gamma-none", why={REASON!r})',
}
ALPHA_PROSE = """
```{recorded-figure} alpha-curve
:alt: A falling curve

The error falls with $t$ as it {verdict}`alpha-small` should. Then it ends.
```

```{recorded-table} alpha-table
The errors.
```

```{recorded-table} alpha-said
What was said.
```

See {numref}`fig-alpha-curve` and {numref}`tab-alpha-table`.

In short: {says}`alpha-small` {verdict}`alpha-small`. It rose by {measured}`alpha-up`, elsewhere {measured}`beta-parts/n = 15`
({verdict}`beta-parts/n = 15`, as a whole {verdict}`beta-parts`); not so {measured}`gamma-none`: {says}`gamma-none`
"""
ANSWERS = {
    "alpha": """
```{question} T1 S1
Is $x^2$ small?
```

```{answer} alpha-small alpha-up
Three cases; see {doc}`/notebooks/beta`.
```
""",
    "beta": """
```{question}
Do the parts hold?
```

```{answer} beta-parts
```
""",
    "gamma": """
```{answer} gamma-none
```
""",
}


def start(name: str, parameters: str = "seed") -> str:
    """The cell of a notebook that makes its record, with these parameters."""
    values = ", ".join(f'"{word}": {word}' for word in parameters.split(", "))
    head = f"from ica.record.record import Record\n{IMPORTS[name]}\n"
    return f'{head}record = Record("{name}", {{{values}}}, [seed])'


def notebook(name: str) -> nbformat.NotebookNode:
    """The stored notebook of that name."""
    title = f"# Page {name}\n\nProse of {name}, long enough to count as text.\n{ANSWERS[name]}"
    cells = [
        new_markdown_cell(title, id="title"),
        new_code_cell("seed = 0\nscale = 1.5" if name == "alpha" else "seed = 0", id="parameters"),
        new_code_cell(start(name), id="start"),
        new_markdown_cell("```{verdicts}\n```", id="ledger"),
        new_code_cell(WORK[name].strip(), id="work"),
        new_code_cell(CLAIM_CELLS[name], id="claim"),
        new_markdown_cell(ALPHA_PROSE if name == "alpha" else "## End\n\nThe end.", id="end"),
    ]
    cells[1].metadata["tags"] = ["parameters"]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def write(folder: Path) -> Path:
    """Write the project into the folder."""
    ignore = shutil.ignore_patterns("__pycache__")
    for name in COPIED:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, target, **({"ignore": ignore} if (ROOT / name).is_dir() else {}))
    (folder / "ica" / "__init__.py").touch()
    for name, source in MODULES.items():
        (folder / "ica" / f"{name}.py").write_text(source)
    registry = folder / "ica" / "record" / "registry"
    shutil.rmtree(registry)
    for part, entries in CLAIMS.items():
        (registry / part).mkdir(parents=True)
        (registry / part / "small.yml").write_text(yaml.safe_dump(entries, sort_keys=False))
    (registry.parent / "paper.yml").write_text(yaml.safe_dump(PAPER, sort_keys=False))
    book = folder / "book"
    (book / "references.bib").write_text(BIB)
    glue = "{glue:text}`/notebooks/alpha.ipynb::alpha-number:.3f`"
    (book / "intro.md").write_text(
        f"# Start\n\nAfter {{cite}}`key` the number is {glue}.\n\n```{{paper-claims}}\n```\n"
    )
    (book / "claims.md").write_text(LEDGER)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_small.py").write_text(FAULTS)
    (folder / "notebooks").mkdir()
    (folder / "notebooks" / "profiles.yml").write_text("ci: {}\npaper: {alpha: {scale: 2}}\n")
    for name in IMPORTS:
        nbformat.write(notebook(name), folder / "notebooks" / f"{name}.ipynb")
    chapters = [{"file": f"notebooks/{name}"} for name in IMPORTS] + [{"file": "book/claims"}]
    toc = {"format": "jb-book", "root": "book/intro", "parts": [{"caption": "Small", "chapters": chapters}]}
    (folder / "_toc.yml").write_text(yaml.safe_dump(toc | {"defaults": {"numbered": 2}}))
    return folder


def edit(folder: Path, name: str, cell_id: str, source: str) -> None:
    """Replace the source of one cell of a stored notebook."""
    path = folder / "notebooks" / f"{name}.ipynb"
    nb = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in nb.cells if cell.id == cell_id)
    cell.source = source
    nbformat.write(nb, path)


def build(folder: Path, *options: str) -> subprocess.CompletedProcess:
    """Run the build as `make book` does, output and errors in one stream as on a screen."""
    command = [sys.executable, "-m", "ica.build.book", *options]
    return subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )


def executed(done: subprocess.CompletedProcess) -> list[str]:
    """Names of the notebooks that a build ran, from its lines."""
    return sorted(line.split()[1] for line in done.stdout.splitlines() if line.lstrip().startswith("["))


def make(folder: Path, *words: str) -> list[str]:
    """The command line of `make` with the environment that runs these tests, taken as ready (-o)."""
    shutil.copy(ROOT / "Makefile", folder)
    if not (folder / ".venv").is_symlink():
        (folder / ".venv").symlink_to(sys.prefix)
    return ["make", "--no-print-directory", "-o", ".venv/.ready", *words]


def outer_environment() -> dict[str, str]:
    """This process's environment without what a `make` around the tests has set."""
    outer = (
        "MAKEFLAGS",
        "MAKELEVEL",
        "PROFILE",
        "SET",
        "JOBS",
        "SNAKEMAKE_FLAGS",
        "MODEL",
        "BBQ",
        "LIMIT",
        "PYTHON",
    )
    return {key: value for key, value in os.environ.items() if key not in outer}


def run_make(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    """Run `make`, output and errors in one stream; `more` are further variables of the environment."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = outer_environment() | more
    return subprocess.run(make(folder, *words), cwd=folder, env=environment, check=False, **streams)
