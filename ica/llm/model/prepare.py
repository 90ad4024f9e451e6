"""Bring an asset into the cache and make it ready: `python -m ica.llm.model.prepare smollm2 --out smollm2.json`.

A model is also converted to the copy that loads fast, once, before several jobs want it at the same time.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ica.build import jobs
from ica.llm.model import assets
from ica.record.provenance import write_json

FACTS = ("name", "kind", "what", "sha256", "licence", "provenance")


def main() -> int:
    """Fetch, check and convert; leave a JSON file that says what is there and on which terms."""
    parser = argparse.ArgumentParser(
        prog="python -m ica.llm.model.prepare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", help="a name of assets.yml")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far this is")
    options = parser.parse_args()

    def work(tell: Callable[[str], None]) -> None:
        options.out.unlink(missing_ok=True)
        asset = assets.named(options.name)
        assets.fetch(asset.name)
        if asset.kind == "model":
            from ica.llm.model.load import load  # heavy, and of no use to data

            load(asset.name)
        write_json(options.out, {name: getattr(asset, name) for name in FACTS})

    return jobs.run(work, f"Fetching {assets.line(options.name)}", options.status)


if __name__ == "__main__":
    sys.exit(main())
