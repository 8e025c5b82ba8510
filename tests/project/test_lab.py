"""A chapter in JupyterLab: it runs to its end, its slider moves, and the figure follows."""

import json
import os
import subprocess
import sys
import time

import nbformat
import pytest
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from helpers.runs import repo_root

CHAPTER = repo_root() / "notebooks" / "00_medical_images.ipynb"
SETTINGS = {  # every cell in the page, also those out of sight; no questions to a server elsewhere
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
PATIENCE = 3 * 60_000  # ms


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Address of a chapter, in profile smoke, in a JupyterLab on this machine only; nothing of the user's is read."""
    folder = tmp_path_factory.mktemp("lab")
    book = parameterize_notebook(load_notebook_node(str(CHAPTER)), {"profile": "smoke"})
    for cell in book.cells:  # what is seen later was made here
        if cell.cell_type == "code":
            cell.outputs = []
    (folder / "notebooks").mkdir()
    nbformat.write(book, folder / "notebooks" / CHAPTER.name)
    for name, values in SETTINGS.items():
        file = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    places = dict(JUPYTER_RUNTIME_DIR="runtime", JUPYTER_CONFIG_DIR="config", JUPYTERLAB_SETTINGS_DIR="settings")
    places |= dict(JUPYTERLAB_WORKSPACES_DIR="workspaces", RUN_DIR="run")
    env = os.environ | {name: str(folder / place) for name, place in places.items()}
    options = ["--ip=127.0.0.1", "--port=0", "--no-browser", "--allow-root", f"--ServerApp.root_dir={folder}"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen([sys.executable, "-m", "jupyterlab", *options], env=env, stdout=log, stderr=log)
    try:
        told = folder / "runtime" / f"jpserver-{server.pid}.json"
        for _ in range(600):
            if told.exists() and told.read_text():
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        there = json.loads(told.read_text())
        yield f"{there['url']}lab/tree/notebooks/{CHAPTER.name}?token={there['token']}"
    finally:
        server.terminate()
        server.wait(60)


def test_a_chapter_runs_in_jupyterlab_and_a_slider_changes_its_figure(lab, browser):
    assert lab.startswith("http://127.0.0.1:")
    page = browser.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(lab)
    page.get_by_text("(ipykernel) | Idle").wait_for()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("[data-command='runmenu:run-all']").click()
    page.locator(".jp-OutputArea-output", has_text="saved metrics.json").wait_for()
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0

    widget = page.locator(".jp-OutputArea-output .widget-interact").first
    figure = widget.locator("img")
    before, chosen = figure.get_attribute("src"), widget.locator(".widget-readout").first.inner_text()
    widget.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    changed = "old => ![undefined, old].includes(document.querySelector('.widget-interact img')?.src)"
    page.wait_for_function(changed, arg=before)
    assert widget.locator(".widget-readout").first.inner_text() != chosen
    assert figure.get_attribute("src").startswith("data:image/")
    page.close()
