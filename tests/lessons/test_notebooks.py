"""What a notebook writes out equals the helper, and its exercises can be solved."""

from types import SimpleNamespace

import nbformat
import numpy as np
import pytest
import torch
from chapter import cells
from PIL import Image
from sklearn.metrics import roc_auc_score

from helpers import explain
from helpers.data import xray
from helpers.nets.densenet import densenet
from helpers.runner import run_notebook
from helpers.runs import read_record, repo_root

CHAPTER = repo_root() / "notebooks" / "01_explanation.ipynb"
BLOCKS = [f"features.denseblock{block}" for block in (1, 2, 3, 4)]


def network_and_images() -> tuple[torch.nn.Module, torch.Tensor]:
    rng = np.random.default_rng(0)
    return densenet("small", seed=3), torch.from_numpy(rng.random((3, 1, 64, 64)).astype(np.float32))


def test_grad_cam_written_out_equals_the_helper():
    (source,) = cells(CHAPTER, "idea")
    namespace = {"torch": torch}
    exec(source, namespace)
    net, images = network_and_images()
    net.classifier.weight.data *= 1000  # maps of order 1, so that 1e-6 is strict
    layers = [*BLOCKS, "relu"]
    maps = namespace["grad_cam_all"](net, images, layers)
    captured = explain.capture(net, images, layers)
    assert list(maps) == layers
    for name in layers:
        expected = explain.grad_cam(captured.features[name], captured.grads[name])
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(maps[name], expected, atol=1e-6, rtol=1e-5)
    assert any((heat < 0).any() for heat in maps.values())  # evidence against is kept
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not any(module._forward_hooks for module in net.modules())


def test_every_exercise_is_followed_by_its_solution():
    book = nbformat.read(CHAPTER, as_version=4)
    tags = [tag for cell in book.cells for tag in cell.metadata.get("tags", []) if tag in ("exercise", "solution")]
    assert len(tags) >= 6 and tags == ["exercise", "solution"] * (len(tags) // 2)


class Films:
    """Ten normal and ten abnormal films, whose pixels are the logits that a network gives them."""

    def __init__(self, abnormal: np.ndarray):
        self.labels = np.repeat([0, 1], 10)
        self.logits = torch.from_numpy(np.concatenate([np.arange(10.0), abnormal]))[:, None]

    def tensor(self) -> torch.Tensor:
        return self.logits


ABOVE, BELOW = np.arange(10, 20.0), np.arange(-10, 0.0)
ARMS = {
    "as in training": ABOVE,
    "no letters": np.append(ABOVE[:9], 4.5),  # one abnormal film in the middle of the normal ones: AUC 0.95
    "letters swapped": BELOW,
    "letters at random": np.concatenate([ABOVE[:5], BELOW[:5]]),
}


def exercise_namespace() -> dict:
    net, images = network_and_images()
    namespace = {"torch": torch, "explain": explain, "net": net.eval(), "x": images, "shown": torch.arange(3)}
    namespace |= {"BLOCKS": BLOCKS, "run": SimpleNamespace(device=torch.device("cpu"))}
    namespace |= {"arms": {where: {"test": Films(logits)} for where, logits in ARMS.items()}}
    namespace |= {"arm_parts": SimpleNamespace(test="test"), "arm_nets": {"fooled": None}}
    namespace |= {"predict": lambda net, pixels: pixels, "roc_auc_score": roc_auc_score}
    return namespace | {"arm_auc": {"fooled, letters swapped": (0.0, 0.0, 0.0)}}


@pytest.mark.parametrize("number", range(3))
def test_a_stub_is_not_yet_right_and_its_solution_is(number, capsys):
    namespace = exercise_namespace()
    exec(cells(CHAPTER, "exercise")[number], namespace)
    assert capsys.readouterr().out == "not yet\n"
    exec(cells(CHAPTER, "solution")[number], namespace)
    assert capsys.readouterr().out == "correct\n"


def test_every_arm_set_that_raises_the_alarm_is_an_answer(capsys):
    """Swapped and random letters, each with its own AUC; not a set on which the fooled network does nearly as well."""
    namespace = exercise_namespace()
    exec(cells(CHAPTER, "exercise")[2], namespace)
    check = namespace["check_alarm"]
    assert check("letters swapped", 0.0) == check("letters at random", 0.5) == "correct"
    assert check("letters at random", 0.9) == "an alarm, but with another AUC"
    assert check("as in training", 1.0) == check("no letters", 0.95) == "not yet"


def test_the_notebook_runs_on_a_folder_in_the_layout_of_mura(tmp_path):
    """Films of several sizes, without masks: every cell runs, and nothing is said of localisation."""
    films = xray(images=48, patients=16, size=80)
    for i, pixels in enumerate(films.images[:, 0]):
        study = "positive" if films.labels[i] else "negative"
        folder = tmp_path / "mura" / "train" / "XR_FOREARM" / f"patient{films.patients[i]:05d}" / f"study1_{study}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[:, : 80 - i % 3 * 8]).save(folder / f"image{i}.png")
    parameters = {"profile": "smoke", "data": "folder", "data_dir": str(tmp_path / "mura")}
    record = read_record(run_notebook(CHAPTER, tmp_path / "out", parameters))
    assert record["data"]["name"] == "own-folder" and record["params"]["data_dir"] == ""
    assert {"auc", "CAM/deletion"} <= set(record["metrics"]) and "CAM/AUPRC" not in record["metrics"]
