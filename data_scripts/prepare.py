"""Compute once what the chapters take from the samples: `python -m data_scripts.prepare`.

The chest views of chapter 01 take a minute or two to project; the weights of the vision transformer are read from their
ONNX file and written as safetensors. A notebook computes what is missing by itself; done here, at set-up, its running
time is its own.
"""

from helpers.data import load
from helpers.nets import dinov2


def main() -> None:
    """The command line."""
    views = load("xray", source="sample", images=900, size=96)
    print(f"{len(views)} views of the sample CT are ready")
    dinov2.prepare()
    print(f"the weights of {dinov2.SALIENCY} are ready")


if __name__ == "__main__":
    main()
