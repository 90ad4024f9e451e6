"""Sphinx extension of this book: recorded figures and tables, the claims ledger, a site that works offline.

The directives are in the modules `companion_*`; this module registers them and adjusts the site: MathJax served with the book, no
script twice, a footer, launch buttons and absolute addresses where an address is known.
"""

import html
import importlib.util
import os
import shutil
from pathlib import Path

import companion_bench
import companion_cite
import companion_claims
import companion_faults
import companion_figures
import companion_gallery
import companion_head
import companion_items
import companion_launch
import companion_light
import companion_made
import companion_runs
import companion_scale
import companion_slider
import companion_verified
import nbformat
from companion_data import notebook_names, read, records
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ConfigError
from sphinx.transforms import SphinxTransform

from ica.build import download
from ica.build.site import BOOK_URL, REPOSITORY_URL, origin
from ica.record.outside import plain_text
from ica.record.provenance import project_root

BINDER = "https://mybinder.org"
MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions")
SHORT = 25  # characters of a number with its interval
LICENCES = "Code: MIT licence. Text and figures: CC BY 4.0."


def footer(state: dict) -> str:
    """One line under each page: licences, version, commit."""
    none = f"no commit ({state['no_commit']})" if state["no_commit"] else "no commit"
    commit = f"commit {state['commit'][:12]}" if state["commit"] else none
    changed = " with local changes" if state["dirty"] else ""
    parts = (LICENCES, f"Version {state['version']}, {commit}{changed}, profile {state['profile']}.")
    return f'<p class="mathjax_ignore">{html.escape(plain_text(" ".join(parts)))}</p>'


def address(variable: str, setting: str | None) -> str:
    """The address that the variable gives for this build, else the setting; ConfigError unless it is one of the web."""
    url = os.environ.get(variable) or setting or ""
    if url and not url.startswith(("https://", "http://")):
        raise ConfigError(f"{variable}: {url!r} is no address; accepted: https://...")
    return url


def configure(app: Sphinx, config: object) -> None:
    """Footer and, only where the addresses are known, what leads to the repository and to the pages' own place."""
    options = config.html_theme_options
    options["extra_footer"] = footer(read(records(app) / "site.json"))
    book = address(BOOK_URL, getattr(config, "html_baseurl", ""))
    config.html_baseurl = book and book.rstrip("/") + "/"
    url = address(REPOSITORY_URL, options.get("repository_url")) or origin(project_root())
    if url:
        options.update(repository_url=url, use_repository_button=True)
        # Binder installs environment.yml; for Colab see companion_launch.
        options["launch_buttons"] = {"notebook_interface": "jupyterlab", "binderhub_url": BINDER}
    else:
        options.pop("launch_buttons", None)


def clean_scripts(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Drop scripts given twice (a constant declared again is an error); let search work without a server."""
    if page == "search":
        # Excerpts of the pages found are fetched, which browsers refuse for local files.
        body = 'if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;'
        app.add_js_file(None, body=body, priority=900)
    found = {
        (script.filename or "", script.attributes.get("body")): script for script in context["script_files"]
    }
    context["script_files"] = list(found.values())


def copy_mathjax(app: Sphinx) -> None:
    """Copy MathJax, its fonts and extensions from the installed package into the site's static files."""
    package = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    target = Path(app.outdir) / "_static" / "mathjax"
    for name in MATHJAX:
        source = package / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / name, dirs_exist_ok=True)
        else:
            shutil.copy(source, target / name)


def copy_records(app: Sphinx) -> None:
    """Copy recorded files to _figures/ and _tables/, and notebooks, in plain words, to where pages offer them.

    What a record may hold is settled when it is staged.
    """
    out = Path(app.outdir)
    numbers = {name: read(records(app) / name / "numbers.json") for name in notebook_names(app)}
    repository = app.config.html_theme_options.get("repository_url") or ""
    known = download.Known(
        companion_claims.rows_of(records(app)), numbers, app.config.html_baseurl or "", repository
    )
    for name in notebook_names(app):
        record = records(app) / name
        for kinds, target in ((("figures",), "_figures"), (("tables", "timed"), "_tables")):
            for kind in kinds:
                if (record / kind).is_dir():
                    shutil.copytree(record / kind, out / target / name, dirs_exist_ok=True)
        offered = out / "_sources" / "notebooks" / f"{name}.ipynb"
        if offered.is_file():
            source = nbformat.read(record / "source.ipynb", as_version=4)
            nbformat.write(download.plain(source, name, known), offered)


def glued(node: nodes.Node) -> bool:
    """Is this a number or text of a run, in the prose?"""
    return isinstance(node, nodes.inline) and "pasted-text" in node["classes"]


class Literal(SphinxTransform):
    """Keep the quotation marks of glued texts as they are."""

    default_priority = 700  # before SmartQuotes, at 750

    def apply(self, **_: object) -> None:
        for node in self.document.findall(glued):
            node["support_smartquotes"] = False


def long_texts(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Let a glued text that is long break like prose; a number stays on one line."""
    for node in doctree.findall(glued):
        if len(node.astext()) >= SHORT:
            node["classes"].append("long")


def finish(app: Sphinx, error: Exception | None) -> None:
    """Add the files that no page's source names, once the pages are there."""
    if error is None and app.builder.format == "html":
        copy_mathjax(app)
        copy_records(app)
        companion_light.lighten(Path(app.outdir))


def setup(app: Sphinx) -> dict:
    modules = [
        companion_figures,
        companion_claims,
        companion_faults,
        companion_runs,
        companion_cite,
        companion_head,
    ]
    modules += [companion_bench, companion_gallery, companion_items, companion_launch]
    modules += [companion_made, companion_scale, companion_slider, companion_verified]
    for module in modules:
        module.setup(app)
    app.connect("config-inited", configure)
    app.connect("html-page-context", clean_scripts, priority=900)
    app.add_transform(Literal)
    app.connect("doctree-resolved", long_texts)
    app.connect("build-finished", finish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
