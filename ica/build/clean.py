"""`make clean`: remove everything that was built, unless a build is running. Standard library only."""

import os
import shutil
import sys
from pathlib import Path

from ica.build.lock import alone

BESIDE = (".snakemake", ".pytest_cache", ".ruff_cache", ".hypothesis")


def main() -> int:
    root = Path.cwd()
    if not (root / "ica").is_dir() or not (root / "Snakefile").is_file():
        print(f"{root} is not this project's folder; call it there", file=sys.stderr)
        return 1
    build, old = root / "build", root / f".build-removed-{os.getpid()}"
    try:
        with alone(build, "make clean", removes=True):
            if build.is_symlink():  # the link stays, for the next build
                for path in build.iterdir():
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            else:
                os.replace(build, old)  # whoever begins now finds an empty place
        for folder in (old, *(root / name for name in BESIDE)):
            if folder.exists():
                shutil.rmtree(folder)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
