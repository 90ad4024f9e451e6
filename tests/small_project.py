"""A project like this one, but with three tiny notebooks, to test the pipeline for real in seconds.

`alpha` imports `ica.one`; `beta` imports `ica.three`, which imports `ica.two`; `gamma` imports neither.
"""

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
BIB = "@misc{key, title = {Title}, author = {Author, A.}, year = {2020}}\n"

CLAIMS = [
    {
        "id": "alpha-small",
        "notebook": "alpha",
        "statement": "The number $x^2$ & co. is <small>.",
        "source": "ours",
        "measured": "the value of $x^2$",
        "criterion": {"op": "<=", "bound": 10.0},
    },
    {
        "id": "beta-parts",
        "notebook": "beta",
        "statement": "One part holds, the other does not.",
        "source": "paper",
        "measured": "two values",
        "criterion": {"parts": {"good": {"op": "<", "bound": 1}, "bad": {"op": ">", "bound": 5}}},
    },
]

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
CLAIM_CELLS = {
    "alpha": 'record.claim("alpha-small", value=VALUE**2)',
    "beta": 'record.claim("beta-parts", parts={"good": {"value": 0}, "bad": {"value": three.VALUE}})',
    "gamma": "1 + 1",
}
ALPHA_PROSE = """
```{recorded-figure} alpha-curve
:alt: A falling curve

The error falls with $t$.
```

```{recorded-table} alpha-table
The errors.
```

```{recorded-table} alpha-said
What was said.
```

See {numref}`fig-alpha-curve` and {numref}`tab-alpha-table`.
"""


def notebook(name: str) -> nbformat.NotebookNode:
    """The stored notebook of that name."""
    start = f"from ica.record.record import Record\n{IMPORTS[name]}\n"
    start += f'record = Record("{name}", {{"seed": seed}}, [seed])'
    ledger = "```{claims}\n```" if name != "gamma" else "No claims."
    cells = [
        new_markdown_cell(f"# Page {name}\n\nProse of {name}, long enough to count as text.", id="title"),
        new_code_cell("seed = 0\nscale = 1.5" if name == "alpha" else "seed = 0", id="parameters"),
        new_code_cell(start, id="start"),
        new_markdown_cell(ledger, id="ledger"),
        new_code_cell(ALPHA.strip() if name == "alpha" else "print(seed)", id="work"),
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
    (folder / "ica" / "claims").mkdir()
    (folder / "ica" / "claims" / "small.yml").write_text(yaml.safe_dump(CLAIMS))
    book = folder / "book"
    (book / "references.bib").write_text(BIB)
    glue = "{glue:text}`/notebooks/alpha.ipynb::alpha-number:.3f`"
    (book / "intro.md").write_text(
        f"# Start\n\nAfter {{cite}}`key` the number is {glue}.\n\n```{{claims-summary}}\n```\n"
    )
    ledger = "# Claims\n\nAll the claims of this book.\n\n```{all-claims}\n```\n\n```{bibliography}\n```\n"
    (book / "claims.md").write_text(ledger)
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
