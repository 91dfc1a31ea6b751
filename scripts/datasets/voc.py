"""Pascal VOC: a folder of images and a folder of XML files of the same names.

The raw class of a face is the object's `<name>`. Images are what the images folder holds, so
that an image without XML is noticed, and so is an XML without image. Where several images have an
XML's name, it is of the one that its `<filename>` names.
"""

import math
from collections import Counter
from collections.abc import Mapping, Set
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

from datasets.annotation import AnnotatedImage, Face
from datasets.errors import DatasetError
from datasets.fingerprint import walk

IMAGE_SUFFIXES = frozenset((".bmp", ".jpeg", ".jpg", ".png", ".webp"))
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(images: Path, annotations: Path, options: Mapping[str, Any]) -> list[AnnotatedImage]:
    """Read every image below `images` with the XML of the same path below `annotations`.

    `options["image_set"]`, a file of VOC's ImageSets with one name a line, limits the images.
    Raises DatasetError when `annotations` is no folder or the image set cannot be read.
    """
    if not annotations.is_dir():
        raise DatasetError(f"{annotations} is no folder of XML files")
    found = _files(images, IMAGE_SUFFIXES)
    labels = _files(annotations, frozenset((".xml",)))
    stems = Counter(_stem(path) for path in found)
    wanted = _image_set(options.get("image_set"), stems.keys() | labels.keys())
    annotated = [
        _annotated(path, annotations / labels[_stem(path)], stems[_stem(path)])
        if _stem(path) in labels
        else AnnotatedImage(path, error="no annotation")
        for path in found
        if wanted is None or _stem(path) in wanted
    ]
    missing = (labels.keys() if wanted is None else wanted) - stems.keys()
    annotated += [AnnotatedImage(stem, error="no image for this annotation") for stem in missing]
    return sorted(annotated, key=lambda image: image.path)


def _stem(path: str) -> str:
    return path[: -len(PurePosixPath(path).suffix)]


def _files(folder: Path, suffixes: frozenset[str]) -> dict[str, str]:
    start = len(str(folder)) + 1
    paths = [entry.path[start:] for entry in walk(folder)]
    chosen = [path for path in paths if PurePosixPath(path).suffix.lower() in suffixes]
    if ".xml" in suffixes:
        return {_stem(path): path for path in sorted(chosen)}
    return {path: path for path in sorted(chosen)}


def _image_set(path: Path | None, known: Set[str]) -> set[str] | None:
    """The names in an image set; of a line that is no known name, what is before the first blank.

    VOC's sets of a class have a flag after each name, -1, 0 or 1.
    """
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise DatasetError(f"image_set {path}: {error.strerror}") from error
    names = set()
    for line in text.splitlines():
        if line.strip():
            candidates = (line, line.strip(), line.rsplit(maxsplit=1)[0], line.split()[0])
            names.add(next(filter(known.__contains__, candidates), candidates[-1]))
    return names


def _annotated(path: str, label: Path, images: int) -> AnnotatedImage:
    """The image with the faces of its XML; `images` is how many that XML may belong to."""
    try:
        root = ElementTree.fromstring(label.read_bytes())
    except OSError as error:
        return AnnotatedImage(path, error=f"annotation {label.name}: {error.strerror}")
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        return AnnotatedImage(path, error=f"annotation {label.name} is no XML: {error}")
    named = (root.findtext("filename") or "").strip()
    if images > 1 and PurePosixPath(named).name != PurePosixPath(path).name:
        choice = f"names {named!r}" if named else "names none"
        reason = f"no annotation: of {images} images, {label.name} {choice}"
        return AnnotatedImage(path, error=reason)
    faces = [_face(element) for element in root.iter("object")]
    return AnnotatedImage(path, faces, size=_size(root))


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    """Width and height by `<size>`, which many writers leave out or fill with 0."""
    try:
        width, height = (int(root.findtext(f"size/{side}") or 0) for side in ("width", "height"))
    except ValueError:
        return None
    return (width, height) if width > 0 and height > 0 else None


def _face(element: ElementTree.Element) -> Face:
    raw_class = (element.findtext("name") or "").strip()
    if not raw_class:
        return Face("", None, malformed="object without name")
    bounds = element.find("bndbox")
    if bounds is None:
        return Face(raw_class, None, malformed="object without bndbox")
    values = []
    for corner in CORNERS:
        text = bounds.findtext(corner)
        try:
            value = float(text or "")
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            return Face(raw_class, None, malformed=f"{corner} is {text!r}, not a number")
        values.append(value)
    return Face(raw_class, (values[0], values[1], values[2], values[3]))
