"""Bring an asset into the cache and make it ready: `python -m ica.llm.model.prepare smollm2 --out smollm2.json`.

A model is also converted to the copy that loads fast, once, before several jobs want it at the same time.
"""

import argparse
import sys
from pathlib import Path

from ica.llm.model import assets
from ica.llm.model.load import ModelError, load
from ica.record.provenance import write_json


def main() -> int:
    """Fetch, check and convert; leave a JSON file that says what is there and on which terms."""
    parser = argparse.ArgumentParser(
        prog="python -m ica.llm.model.prepare", description=__doc__.splitlines()[0]
    )
    parser.add_argument("name", help="a name of assets.yml")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file")
    parser.add_argument("--failure", type=Path, help="a file for what went wrong, for the end of the screen")
    options = parser.parse_args()
    try:
        asset = assets.named(options.name)
        assets.fetch(options.name)
        if asset.kind == "model":
            load(options.name)
        facts = {
            name: getattr(asset, name) for name in ("name", "kind", "what", "sha256", "licence", "provenance")
        }
        write_json(options.out, facts)
    except (assets.AssetError, ModelError) as error:
        options.out.unlink(missing_ok=True)
        if options.failure:
            options.failure.parent.mkdir(parents=True, exist_ok=True)
            options.failure.write_text(f"Fetching {options.name} failed.\n\n{error}\n", encoding="utf-8")
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
