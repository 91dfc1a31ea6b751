"""The notebook, from top to bottom, on a shortened demo, and then once more."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from configuration import merged

NOTEBOOK = "notebooks/face-mask-detection.ipynb"
CHAPTERS = (
    "0. Set up",
    "1. Prepare the dataset and the pretrained model",
    "2. Provide the training specification",
    "3. Train",
    "4. Evaluate the trained model",
    "5. Prune",
    "6. Retrain the pruned models",
    "7. Evaluate the retrained models",
    "8. Visualise inference",
    "9. Deploy",
)
# What takes long in the demo; all else is as shipped.
SHORTER = {
    "train": {"epochs": 4, "validation": {"first_epoch": 2, "period": 2}},
    "retrain": {"epochs": 1},
    "deploy": {
        "local": {"duration_s": 2, "drawn_clip": {"width": 320, "height": 180, "seconds": 2}}
    },
}


def test_ten_chapters_and_no_outputs(repository):
    cells = json.loads((repository / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert tuple(headings) == CHAPTERS
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_bash_cells_stop_at_the_first_failure(repository):
    cells = json.loads((repository / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    scripts = [source.splitlines()[1:] for source in sources if source.startswith("%%bash")]
    assert len(scripts) >= 15
    assert [lines for lines in scripts if len(lines) > 1 and lines[0] != "set -e"] == []


@pytest.fixture
def shortened_demo(repository, clone) -> Path:
    """A checkout whose demo differs from the shipped one in its length alone."""
    shutil.copytree(repository / "notebooks", clone / "notebooks")
    demo = clone / "config/demo.yaml"
    config = merged(yaml.safe_load(demo.read_text(encoding="utf-8")), SHORTER)
    demo.write_text(yaml.safe_dump(config), encoding="utf-8")
    return clone


def executed(folder: Path) -> list[dict]:
    """The notebook's code cells after a run in a new kernel."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(folder / "notebooks")}}
    )
    client.execute()
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cells: list[dict], source: str) -> str:
    """What the one cell with so much in its source printed."""
    (cell,) = [cell for cell in cells if source in cell.source]
    return "".join(output.text for output in cell.outputs if output.get("name") == "stdout")


def times(results: Path) -> dict[Path, int]:
    """When each model, calibration cache and log of a job was written."""
    patterns = ("**/*.hdf5", "export/*/*.onnx", "export/*/*.bin", "logs/**/*.log")
    found = [path for pattern in patterns for path in results.glob(pattern)]
    return {path: path.stat().st_mtime_ns for path in found}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_from_top_to_bottom_and_once_more(shortened_demo, monkeypatch):
    folder = shortened_demo
    monkeypatch.delenv("CONFIG", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(folder / "scripts"))
    # The kernel of this interpreter, whatever else is registered.
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    cells = executed(folder)
    results = folder / "results_demo"
    assert (folder / "data/demo/mafa").is_dir()
    assert {path.name for path in (results / "retrained").iterdir()} == {"ratio-0.25", "ratio-0.1"}
    assert (results / "report.html").stat().st_size > 100_000
    assert len(list((results / "inference/images_annotated").glob("*.jpg"))) >= 8
    shown = [
        output
        for cell in cells
        for output in cell.outputs
        if "data" in output and {"image/jpeg", "text/html"} & set(output.data)
    ]
    assert len(shown) >= 11
    calibration = printed(cells, "calibration.trt")
    assert "\nTRT-" in calibration

    before = times(results)
    assert len(before) > 20
    again = executed(folder)
    assert times(results) == before
    assert printed(again, "calibration.trt") == calibration
