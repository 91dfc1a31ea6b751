"""What the scripts behind NVIDIA's toolkits make of printed figures and of model files."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from choose_model import choose_model
from detectnet_v2.model import DetectNetV2, count_macs, count_parameters
from detectnet_v2.model_file import save_model
from detectnet_v2.prune import PruneSettings, prune
from evaluation_metrics import evaluation_metrics
from pruning_summary import pruning_summary
from start_training import start_training

CAPTURED = Path(__file__).parents[1] / "toolkits/captured"
FACES = ["mask", "no-mask"]
NETWORK = (10, 96, 64)
SETTINGS = {"threshold": 0.9, "min_num_filters": 16}


class Inputs(SimpleNamespace):
    """Inputs by name, like Snakemake's."""

    def get(self, name, default=None):
        return getattr(self, name, default)


def captured(name):
    return (CAPTURED / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def models():
    """A small network, and the same pruned."""
    torch.manual_seed(0)
    whole = DetectNetV2(10, 2, input_height=64, input_width=96)
    return whole, prune(whole, PruneSettings(threshold=0.95))


def test_encrypted_models_leave_the_printed_ratio():
    summary = pruning_summary(
        captured("tlt2_prune.txt"), Path("model.tlt"), Path("pruned.tlt"), SETTINGS
    )
    assert summary == {"ratio": 0.12184797} | SETTINGS


def test_plain_models_are_counted_as_well(models, tmp_path):
    whole, pruned = models
    for name, model in (("whole", whole), ("pruned", pruned)):
        save_model(model, tmp_path / f"{name}.hdf5")
    text = captured("tao5_prune.txt")
    summary = pruning_summary(text, tmp_path / "whole.hdf5", tmp_path / "pruned.hdf5", SETTINGS)
    assert summary["ratio"] == 0.9953842932430587
    assert summary["parameters"] == {
        "before": count_parameters(whole),
        "after": count_parameters(pruned),
    }
    assert summary["widths"]["after"] == pruned.widths


def test_size_of_an_encrypted_model_follows_from_the_ratios(models, tmp_path):
    whole, _ = models
    ratios = []
    for number, ratio in enumerate((0.5, 0.25)):
        ratios.append(tmp_path / f"{number}.json")
        ratios[-1].write_text(json.dumps({"ratio": ratio}))
    text = captured("tlt2_evaluate.txt")
    unpruned = evaluation_metrics(text, FACES, model=Path("model.tlt"), network=NETWORK)
    assert unpruned["mAP"] == 56.0311
    assert unpruned["model"] == {
        "parameters": count_parameters(whole),
        "macs": count_macs(whole),
        "input": [3, 64, 96],
    }
    pruned = evaluation_metrics(
        text, FACES, model=Path("model.tlt"), network=NETWORK, pruned=ratios
    )
    assert pruned["model"]["parameters"] == round(count_parameters(whole) / 8)
    assert pruned["model"]["macs"] is None


def test_size_of_a_plain_model_is_counted(models, tmp_path):
    _, pruned = models
    save_model(pruned, tmp_path / "model.hdf5")
    metrics = evaluation_metrics(
        captured("tlt2_evaluate.txt"), FACES, model=tmp_path / "model.hdf5", network=NETWORK
    )
    assert metrics["model"]["parameters"] == count_parameters(pruned)
    assert metrics["model"]["macs"] == count_macs(pruned)


@pytest.mark.parametrize(
    ("script", "printed"),
    [("pruning_summary", "tao5_prune.txt"), ("evaluation_metrics", "tlt2_evaluate.txt")],
)
def test_a_damaged_model_is_one_line(repository, tmp_path, script, printed):
    model = tmp_path / "model.hdf5"
    model.write_bytes(b"no model")
    job = SimpleNamespace(
        input=Inputs(text=CAPTURED / printed, before=model, after=model, model=model),
        output=[str(tmp_path / "out.json")],
        log=[str(tmp_path / "log")],
        params=SimpleNamespace(
            settings=SETTINGS, classes=FACES, network=NETWORK, status=tmp_path / "status.json"
        ),
    )
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(repository / f"scripts/{script}.py"), {"snakemake": job}, "__main__")
    (line,) = str(ended.value).splitlines()
    assert line.startswith(f"{model} is not a Keras HDF5 file")
    assert (tmp_path / "log").read_text() == f"{line}\n"
    assert not (tmp_path / "out.json").exists()


def test_choice_needs_no_figures_of_coco(models):
    text = captured("tlt2_evaluate.txt")
    runs = {
        "unpruned": evaluation_metrics(text, FACES, model=Path("a.tlt"), network=NETWORK),
        "retrained/0.5": evaluation_metrics(text, FACES, model=Path("b.tlt"), network=NETWORK),
    }
    runs["retrained/0.5"]["model"] = {"parameters": 100, "macs": None}
    choice, table = choose_model(runs, 0.6)
    assert choice["run"] == "retrained/0.5"
    assert table["COCO AP"].isna().all()


def test_new_training_finds_nothing_of_the_old_one(tmp_path):
    for name in ("model.epoch-9.ckzip", "model.step-90.tlt", "weights/model.hdf5", "status.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "train_spec.txt").touch()
    (tmp_path / "evaluation/fold0").mkdir(parents=True)
    start_training(tmp_path, "image", tmp_path / "start.json")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"train_spec.txt", "evaluation", "start.json"}
