"""Snakemake as `book` starts it: with a cache of its own, and gone once `book` is gone, whatever ended that.

Its jobs see in turn that their parent is gone (`ica.build.jobs`), so of a killed build nothing goes on.
"""

import os
import signal
import sys
from pathlib import Path

import psutil

from ica.build import jobs

CACHE, HUB = "XDG_CACHE_HOME", "HF_HOME"


def main() -> None:
    parent = os.getppid()
    jobs.follow(lambda: os.getppid() != parent, lambda: jobs.end_tree(psutil.Process()))
    # The home folder may be read-only. Models of the hub stay where the user's other programs find them.
    os.environ.setdefault(HUB, str(Path(os.environ.get(CACHE) or "~/.cache").expanduser() / "huggingface"))
    os.environ[CACHE] = os.path.join(os.environ[jobs.FOLDER], ".cache")
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # also where a shell had it ignored: `book` asks by it for an end
    from snakemake import cli  # reads the environment as it loads

    cli.main(sys.argv[1:])


if __name__ == "__main__":
    main()
