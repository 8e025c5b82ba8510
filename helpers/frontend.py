"""Is a person watching? Widgets and progress bars are for live front ends only."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from tqdm.auto import tqdm


def is_live() -> bool:
    """True in JupyterLab, Colab, VS Code and terminals; False under papermill, nbclient and nbval."""
    if "ipykernel" in sys.modules:
        return "JPY_SESSION_NAME" in os.environ or "google.colab" in sys.modules or "VSCODE_PID" in os.environ
    return sys.stderr.isatty()


def progress(iterable: Iterable, *, description: str = "") -> Iterable:
    """The same items with a progress bar where a person is watching."""
    return tqdm(iterable, desc=description, leave=False, disable=not is_live())
