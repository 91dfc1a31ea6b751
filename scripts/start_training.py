"""Clears what a training with other settings left, so that NVIDIA's toolkits cannot resume from it.

    python -m start_training IMAGE OUTPUT

They go on from the newest checkpoint in the results folder, whatever spec and data it came from.
This runs when spec, data or first weights change, and not when an interrupted training goes on.
"""

import json
import shutil
import sys
from pathlib import Path

LEFT_OVERS = ("*.ckzip", "*.tlt", "*.hdf5", "*.tlt.lock", "status.json", "*.csv", "checkpoint")
LEFT_FOLDERS = ("weights", "events", "checkpoints", "graph")


def start_training(folder: Path, toolkit: str, output: Path) -> list[str]:
    """Remove checkpoints and models in `folder` and write `output`; returns what was removed."""
    removed = []
    for pattern in LEFT_OVERS:
        for path in sorted(folder.glob(pattern)):
            path.unlink()
            removed.append(path.name)
    for name in LEFT_FOLDERS:
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
            removed.append(name)
    output.write_text(json.dumps({"toolkit": toolkit}) + "\n", encoding="utf-8")
    return removed


if __name__ == "__main__":
    image, mark = sys.argv[1:]
    gone = start_training(Path(mark).parent, image, Path(mark))
    print(f"removed: {', '.join(gone) or 'nothing'}")
