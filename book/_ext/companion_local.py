"""Fonts for a reader who opens the site from disk in Firefox, which loads no font from a file: a script that holds them.

Formulas fall back to upright letters there, and icons to empty boxes. Elsewhere the script is not asked for.
"""

import base64
import json
import re
from pathlib import Path

from sphinx.application import Sphinx

FILE = "local_fonts.js"
ASK = (
    'if (location.protocol === "file:" && navigator.userAgent.includes("Firefox")) document.head.append(Object.assign('
    'document.createElement("script"), { src: document.documentElement.dataset.content_root + "_static/'
    + FILE
    + '" }));'
)
# In the script of MathJax, and in the styles of the theme.
MATHS = re.compile(r'"font-family":"(MJX[A-Z][\w-]*)",src:\'url\("%%URL%%/([\w-]+\.woff)"\)')
ICONS = re.compile(
    r"@font-face\{[^}]*?font-family:([^;]+);[^}]*?font-weight:(\d+);[^}]*?url\(([^)]+\.woff2)\)"
)


def faces(static: Path) -> list[tuple[str, str, Path]]:
    """Family, weight and file of every font that the site's static files name."""
    maths, styles = static / "mathjax" / "tex-chtml.js", static / "styles" / "pydata-sphinx-theme.css"
    fonts = maths.parent / "output" / "chtml" / "fonts" / "woff-v2"
    found = [
        (name, "normal", fonts / file) for name, file in MATHS.findall(maths.read_text(encoding="utf-8"))
    ]
    if styles.is_file():
        found += [
            (name.replace("\\", ""), weight, (styles.parent / url).resolve())
            for name, weight, url in ICONS.findall(styles.read_text(encoding="utf-8"))
        ]
    return found


def script(static: Path) -> str:
    """The script that adds them to a page, each as data."""
    given = [
        [name, weight, f"data:font/{file.suffix[1:]};base64,{base64.b64encode(file.read_bytes()).decode()}"]
        for name, weight, file in faces(static)
    ]
    add = "document.fonts.add(new FontFace(name, `url(${data})`, { weight }))"
    return f"for (const [name, weight, data] of {json.dumps(given)}) {add};\n"


def write(app: Sphinx, error: Exception | None) -> None:
    static = Path(app.outdir) / "_static"
    if error is None and app.builder.format == "html":
        (static / FILE).write_text(script(static), encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.add_js_file(None, body=ASK)
    app.connect("build-finished", write, priority=900)  # after MathJax is copied
