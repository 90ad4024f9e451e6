"""Comparing two builds: a changed, a missing and a new data file are all seen; times are left out."""

from ica.build import repeat


def records(folder, files: dict[str, str]):
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return repeat.data_files(folder)


def test_every_difference_is_named(tmp_path):
    first = records(tmp_path / "1", {"a/figures/x.csv": "1", "a/figures/y.csv": "1", "b/tables/t.csv": "1"})
    second = records(tmp_path / "2", {"a/figures/x.csv": "1", "a/figures/y.csv": "2", "b/tables/u.csv": "1"})
    assert repeat.differences(first, second) == [
        "a/figures/y.csv: differs",
        "b/tables/t.csv: only in the first build",
        "b/tables/u.csv: only in the second build",
    ]
    assert repeat.differences(first, first) == []


def test_times_and_images_are_left_out(tmp_path):
    found = records(tmp_path, {"a/timed/t.csv": "1", "a/figures/x.svg": "1", "a/figures/x.csv": "1"})
    assert list(found) == ["a/figures/x.csv"]


def test_a_build_that_fails_fails_the_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(repeat.book, "main", lambda arguments: 1)
    assert repeat.main([]) == 1
    monkeypatch.setattr(repeat.book, "main", lambda arguments: 0)
    assert repeat.main([]) == 1  # nothing to compare is no success
