"""Compute once what the chapters take from the samples: `python -m data_scripts.prepare`.

The chest views of chapter 01 take a minute or two to project. A notebook computes what is missing by itself; done
here, at set-up, its running time is its own.
"""

from helpers.data import load


def main() -> None:
    """The command line."""
    views = load("xray", source="sample", images=900, size=96)
    print(f"{len(views)} views of the sample CT are ready")


if __name__ == "__main__":
    main()
