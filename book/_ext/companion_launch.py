"""The button that opens a page's notebook in Colab, beside Binder's: only where it would work.

Colab reads notebooks out of repositories of github.com alone, and has no `ica`. So it is led to the downloaded copy of the notebook, whose
first cell fetches the package: into the branch that holds the built site, which `companion_pages` in _config.yml or ICA_PAGES names.
"""

import os
import re

from companion_data import notebook_names
from sphinx.application import Sphinx
from sphinx.errors import ConfigError

from ica.build.site import PAGES

COLAB = "https://colab.research.google.com/github"
PLACE = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")  # a branch, and folders in it


def pages(app: Sphinx) -> str:
    """Branch, and folder, that holds the built site, or nothing; ConfigError for what cannot be one."""
    place = (os.environ.get(PAGES) or app.config.companion_pages).strip("/")
    if place and not PLACE.fullmatch(place):
        raise ConfigError(f"{PAGES}: {place!r} is no branch; accepted: as gh-pages or main/docs")
    return place


def address(repository: str, place: str, page: str) -> str:
    """Where Colab opens the notebook of a page; nothing without a repository on github.com or a place of the site."""
    found = re.fullmatch(r"https?://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", repository)
    return f"{COLAB}/{found[1]}/blob/{place}/_sources/{page}.ipynb" if found and place else ""


def launch(app: Sphinx, page: str, template: str, context: dict, doctree: object) -> None:
    """Add the button to those of a notebook's page."""
    folder, _, name = page.rpartition("/")
    if folder != "notebooks" or name not in notebook_names(app):
        return
    url = address(app.config.html_theme_options.get("repository_url") or "", pages(app), page)
    for group in context.get("header_buttons", []):
        if url and group.get("label") == "launch-buttons":
            button = {"text": "Colab", "tooltip": "Launch on Colab", "icon": "_static/images/logo_colab.png"}
            group["buttons"].append({"type": "link", "url": url, **button})


def setup(app: Sphinx) -> None:
    app.add_config_value("companion_pages", "", "html")
    app.connect("builder-inited", pages)
    app.connect("html-page-context", launch, priority=502)  # after the theme's own
