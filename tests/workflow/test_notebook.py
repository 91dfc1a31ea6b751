"""The notebook, from top to bottom, on the small run."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

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


def test_ten_chapters_and_no_outputs(repository):
    cells = json.loads((repository / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert tuple(headings) == CHAPTERS
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_from_top_to_bottom(tmp_path, monkeypatch, repository, fresh_checkout):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    folder = tmp_path / "checkout"
    shutil.copytree(fresh_checkout, folder)
    shutil.copytree(repository / "notebooks", folder / "notebooks")
    monkeypatch.setenv("CONFIG", str(Path(__file__).parent / "small.yaml"))
    monkeypatch.setenv("PYTHONPATH", str(folder / "scripts"))
    # The kernel of this interpreter, whatever else is registered.
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    notebook = nbformat.read(folder / NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(folder / "notebooks")}}
    )
    client.execute()
    results = folder / "results"
    assert (results / "report.html").stat().st_size > 100_000
    assert len(list((results / "inference/images_annotated").glob("*.jpg"))) >= 8
    assert (results / "int8/calibration.bin").read_text().startswith("TRT-")
    shown = [
        output
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "data" in output and {"image/jpeg", "text/html"} & set(output.data)
    ]
    assert len(shown) >= 11
