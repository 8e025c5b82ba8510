"""One thread per test process: the tensors are small, and other processes may be at work on the same cores."""

import shutil

import pytest
import torch
from playwright.sync_api import sync_playwright

torch.set_num_threads(1)

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, for the tests that look at a page."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program, f"none of {', '.join(BROWSERS)} is installed; the README says how to"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()
