"""gie-kitti-output-dir: one KITTI file a frame and stream, as deepstream-app writes them."""

import logging
from pathlib import Path

from deepstream.detector import Objects
from deepstream.inferconfig import InferConfig

log = logging.getLogger("deepstream")


class KittiDump:
    """Writes `<instance>_<stream>_<frame>.txt` with 16 columns, boxes in streammux pixels.

    Without the folder deepstream-app writes nothing and says nothing; here it is said.
    """

    def __init__(self, folder: Path, config: InferConfig, *, instance: int = 0):
        self._folder = folder if folder.is_dir() else None
        self._config = config
        self._instance = instance
        if self._folder is None:
            log.warning("gie-kitti-output-dir: %s does not exist, nothing is dumped", folder)

    def write(self, stream: int, number: int, objects: Objects) -> None:
        """Write one frame's file, also when it is empty."""
        if self._folder is None:
            return
        name = f"{self._instance:02d}_{stream:03d}_{number:06d}.txt"
        text = "".join(lines(objects, self._config))
        (self._folder / name).write_text(text, encoding="utf-8")


def lines(objects: Objects, config: InferConfig) -> list[str]:
    """Format objects as KITTI lines: label, box and, as column 16, the confidence."""
    unused = " ".join(["0.0"] * 7)
    return [
        f"{config.label(int(class_id))} 0.0 0 0.0 "
        f"{left:f} {top:f} {right:f} {bottom:f} {unused} {confidence:f}\n"
        for class_id, (left, top, right, bottom), confidence in zip(
            objects.class_ids, objects.boxes, objects.confidence, strict=True
        )
    ]
