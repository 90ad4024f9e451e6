"""The button for Colab leads to a notebook that runs there, and is absent where none would."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from sphinx.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def companion_launch():
    sys.path.insert(0, str(ROOT / "book" / "_ext"))
    try:
        import companion_launch

        yield companion_launch
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(
    ("repository", "place", "leads"),
    [
        ("https://github.com/a/b-c", "gh-pages", "a/b-c/blob/gh-pages"),
        ("https://github.com/a/b.git", "main/docs", "a/b/blob/main/docs"),
        ("https://github.com/a/b.d/", "gh-pages", "a/b.d/blob/gh-pages"),
        ("https://github.com/a/b", "", ""),
        ("https://gitlab.com/a/b", "gh-pages", ""),
        ("", "gh-pages", ""),
    ],
)
def test_address_in_colab(companion_launch, repository, place, leads):
    found = companion_launch.address(repository, place, "notebooks/alpha")
    start = "https://colab.research.google.com/github/"
    assert found == (f"{start}{leads}/_sources/notebooks/alpha.ipynb" if leads else "")


def app(tmp_path: Path, place: str, repository: str = "https://github.com/a/b") -> SimpleNamespace:
    (tmp_path / "_record/alpha").mkdir(parents=True, exist_ok=True)
    config = SimpleNamespace(companion_pages=place, html_theme_options={"repository_url": repository})
    return SimpleNamespace(config=config, srcdir=tmp_path)


def test_button_stands_beside_binder_on_notebooks_alone(companion_launch, tmp_path, monkeypatch):
    monkeypatch.delenv("ICA_PAGES", raising=False)

    def buttons(page: str, place: str) -> list[str]:
        group = {"label": "launch-buttons", "buttons": [{"text": "Binder"}]}
        context = {"header_buttons": [{"type": "link"}, group]}
        companion_launch.launch(app(tmp_path, place), page, "", context, None)
        return [one["text"] for one in group["buttons"]]

    assert buttons("notebooks/alpha", "gh-pages") == ["Binder", "Colab"]
    assert buttons("notebooks/alpha", "") == ["Binder"]
    assert buttons("book/intro", "gh-pages") == ["Binder"]


def test_what_is_no_branch_is_told(companion_launch, tmp_path, monkeypatch):
    monkeypatch.setenv("ICA_PAGES", "../x y")
    with pytest.raises(
        ConfigError, match="ICA_PAGES: '../x y' is no branch; accepted: as gh-pages or main/docs"
    ):
        companion_launch.pages(app(tmp_path, ""))
