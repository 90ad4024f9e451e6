"""Collect what all runs measured, and judge: `python -m ica.build.ledger RECORD_DIR... --out FILE --paper FILE`."""

import argparse
import sys
from pathlib import Path

from ica.build import jobs
from ica.record import ledger, seals


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m ica.build.ledger", description="Collect claims and give verdicts."
    )
    parser.add_argument("folders", nargs="*", type=Path, metavar="RECORD_DIR")
    parser.add_argument("--out", type=Path, required=True, help="a JSON file for our claims")
    parser.add_argument("--paper", type=Path, required=True, help="a JSON file for those of the paper")
    parser.add_argument("--seal", type=Path, help="a JSON file that says that both are whole")
    parser.add_argument("--digest", default="", help="of all that they are made from")
    parser.add_argument("--status", type=Path, help="a JSON file that says how far the job is")
    options = parser.parse_args(arguments)

    def work(tell: jobs.Tell) -> None:
        print(ledger.write(options.folders, options.out, options.paper))
        if options.seal:
            seals.write(options.seal, [options.out, options.paper], {"digest": options.digest})

    return jobs.run(work, "The ledger of claims", options.status)


if __name__ == "__main__":
    sys.exit(main())
