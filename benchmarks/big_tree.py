"""A big Pascal VOC dataset for benchmarks: a few pictures, hard-linked under many names."""

import itertools
import os
from pathlib import Path

import numpy as np
from PIL import Image

ANNOTATION = (
    "<annotation><size><width>0</width><height>0</height><depth>3</depth></size>"
    + "<object><name>mask</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax>"
    "<ymax>40</ymax></bndbox></object>" * 4 + "</annotation>"
)


def drawn(folder: Path, number: int, size: tuple[int, int] = (1024, 768)) -> list[Path]:
    """Pictures of smooth noise, width and height as given, where no raw folder is at hand."""
    rng = np.random.default_rng(0)
    paths = []
    for index_ in range(number):
        coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
        paths.append(folder / f"source{index_}.jpg")
        coarse.resize(size, Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def build(root: Path, sources: list[Path], number: int) -> dict:
    """A VOC dataset of `number` images below `root`."""
    for place in ("images", "labels", "sources"):
        (root / place).mkdir()
    # Hard links cannot leave a file system: one copy of each source, then links.
    copies = []
    for number_, source in enumerate(sources):
        copies.append(root / "sources" / f"{number_}{source.suffix}")
        copies[-1].write_bytes(source.read_bytes())
    for number_, source in zip(range(number), itertools.cycle(copies), strict=False):
        os.link(source, root / "images" / f"{number_:06d}{source.suffix}")
        (root / "labels" / f"{number_:06d}.xml").write_text(ANNOTATION, encoding="utf-8")
    return {
        "root": str(root),
        "layout": "voc",
        "class_map": {"mask": "mask"},
        "splits": {"train": {"images": "images", "annotations": "labels"}},
    }
