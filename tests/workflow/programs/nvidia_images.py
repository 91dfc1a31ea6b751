"""Which programs NVIDIA's images have, and how the tests put them onto a container's PATH."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TLT2 = {
    "tlt-dataset-convert": "dataset_convert",
    "tlt-train": "train",
    "tlt-evaluate": "evaluate",
    "tlt-prune": "prune",
    "tlt-infer": "inference",
    "tlt-export": "export",
}
TAO = {"detectnet_v2": ""}
IMAGES = {
    "nvcr.io/nvidia/tlt-streamanalytics:v2.0_py3": ("tlt2", TLT2),
    "nvcr.io/nvidia/tao/tao-toolkit:4.0.0-tf1.15.5": ("tao4", TAO),
    "nvcr.io/nvidia/tao/tao-toolkit:5.0.0-tf1.15.5": ("tao5", TAO),
}


def enter(image: str, folder: str) -> dict[str, str]:
    """Write the image's programs to `folder`; returns the environment in which they are found."""
    dialect, programs = IMAGES[image]
    for name, task in programs.items():
        program = Path(folder, name)
        toolkit = HERE / "nvidia_toolkit.py"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {toolkit} {task} "$@"\n')
        program.chmod(0o755)
    return {
        "TEST_DIALECT": dialect,
        "PYTHONPATH": str(HERE.parents[2] / "scripts"),
        "OMP_NUM_THREADS": "1",
        "PATH": f"{folder}:/usr/bin:/bin",
    }
