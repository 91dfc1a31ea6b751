"""Chapter with photographs of fold 0 on which the model does best and worst."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from detectnet_v2.errors import DetectNetError
from detectnet_v2.kitti import read_labels
from detectnet_v2.tfrecord import decode_example, read_records
from PIL import Image, ImageDraw, ImageFont

from report.blocks import Block, Gallery, Note, Picture, Section, parts
from report.drawing import FigureFolder, class_colours
from report.errors import ReportError
from report.pictures import picture
from report.results import Results, run_label
from report.sections.accuracy import CURVE, best_point

DETECTIONS = ("image", "class", "x1", "y1", "x2", "y2", "confidence")
BEST, WORST = 3, 6
# An untrained network covers an image with false detections; the most confident ones tell enough.
MOST_FALSE = 15
TILE_WIDTH = 640
TILE_BYTES = 70_000


@dataclass
class Verdict:
    """An image's faces and detections; boxes are (n, 4) x1 y1 x2 y2, pixels of the converted image.

    matched: index of the detection that finds each face, -1 for a missed one. false: indices of the
    detections that find none. counted: which faces are large enough to be evaluated; smaller ones
    are neither found nor missed.
    """

    name: str
    faces: np.ndarray
    face_classes: list[str]
    detections: np.ndarray
    detection_classes: list[str]
    confidences: np.ndarray
    counted: np.ndarray
    matched: np.ndarray
    false: list[int] = field(default_factory=list)

    @property
    def found(self) -> int:
        """Faces that a detection of the same class finds."""
        return int(((self.matched >= 0) & self.counted).sum())

    @property
    def missed(self) -> int:
        """Faces that none finds."""
        return int(((self.matched < 0) & self.counted).sum())

    @property
    def errors(self) -> int:
        """Missed faces and false detections."""
        return self.missed + len(self.false)

    @property
    def score(self) -> float:
        """Found faces of all faces and false detections, 0 to 1."""
        return self.found / (self.found + self.errors) if self.found + self.errors else 1.0


def section(results: Results, folder: FigureFolder) -> Section:
    """Best and worst images of the chosen model, or of the unpruned one without a choice."""
    run = results.chosen or "unpruned"
    return Section(
        "examples",
        "Examples",
        f"Validation images of fold 0 with the detections of the model {run_label(run)}.",
        parts(("Best and worst images", lambda: galleries(results, folder, run))),
    )


def galleries(results: Results, folder: FigureFolder, run: str) -> list[Block]:
    """Two galleries, worst first, and a table of all images in the report folder."""
    verdicts = judge(results, run)
    folder.write("examples.csv", ranking(verdicts).to_csv(index=False).encode())
    colours = class_colours(results.classes)
    wrong = [v for v in worst_first(verdicts) if v.errors][:WORST]
    right = [v for v in best_first(verdicts) if not v.errors][:BEST]
    legend = (
        "Solid: detections, with confidence. Dashed: labels. "
        f"{', '.join(f'{name} {_colour_word(colours[name])}' for name in results.classes)}. "
        "Filled: missed faces; crossed: false detections; dotted: faces too small to count. "
        "Detections above the confidence with the best F1 score of their class; of an image's "
        f"false ones the {MOST_FALSE} most confident."
    )
    blocks: list[Block] = []
    for title, chosen in (("Worst images", wrong), ("Best images", right)):
        if not chosen:
            blocks.append(Note(title, "None: there is no such image in fold 0."))
            continue
        pictures = [tile(results, folder, v, colours, f"{title[:-7].lower()}_{i:02d}")
                    for i, v in enumerate(chosen, 1)]  # fmt: skip
        blocks.append(Gallery(title, legend if chosen is wrong or not wrong else "", pictures, 340))
    return blocks


def _colour_word(colour: str) -> str:
    return {"#1f9d61": "green", "#d94a3d": "red"}.get(colour, colour)


def judge(results: Results, run: str) -> list[Verdict]:
    """Every image of fold 0 with its labels and the run's detections, matched.

    Raises NotThereYet before the evaluation, ReportError for damaged files.
    """
    base = f"{run}/evaluation/fold0"
    detections = results.table(f"{base}/detections.csv", DETECTIONS, text=("image", "class"))
    curve = results.table(f"{base}/precision_recall.csv", CURVE, text=("class",))
    thresholds = {}
    for name in results.classes:
        best = best_point(curve[curve["class"] == name])
        thresholds[name] = float(best["confidence"]) if best is not None else 1.0
    kept = detections[detections["confidence"] >= detections["class"].map(thresholds).fillna(1.0)]
    by_image = {name: group for name, group in kept.groupby(kept["image"].map(_stem), sort=False)}
    nothing = kept.iloc[:0]
    evaluate = results.config["evaluate"]
    verdicts = []
    for name in fold_images(results):
        faces, classes = _labels(results, name)
        found = by_image.get(name, nothing).sort_values(
            "confidence", ascending=False, kind="stable"
        )
        verdict = match(
            name, faces, classes,
            found[["x1", "y1", "x2", "y2"]].to_numpy(float), list(found["class"]),
            found["confidence"].to_numpy(float),
            overlap=evaluate["minimum_overlap"],
            least=(evaluate["minimum_width"], evaluate["minimum_height"]),
        )  # fmt: skip
        verdicts.append(verdict)
    return verdicts


def _stem(image: str) -> str:
    """The name that an image has in kitti/; detections may name its folder and suffix too."""
    name = image.rpartition("/")[2]
    return name[: -len(".jpg")] if name.endswith(".jpg") else name


def fold_images(results: Results) -> list[str]:
    """Names of the images of fold 0, as its tfrecords list them."""
    files = sorted((results.root / "tfrecords/train").glob("*-fold-000-of-*-shard-*[0-9]"))
    if not files:
        raise results.absent("tfrecords/train")
    try:
        return [
            _stem(decode_example(record)["frame/id"][0].decode())
            for file in files
            for record in read_records(file)
        ]
    except DetectNetError as error:
        raise ReportError(str(error)) from error


def _labels(results: Results, name: str) -> tuple[np.ndarray, list[str]]:
    try:
        labels = read_labels(results.root / f"kitti/train/labels/{name}.txt")
    except DetectNetError as error:
        raise ReportError(str(error)) from error
    known = [label for label in labels if label.name in results.classes]
    boxes = np.array([label.box for label in known], float).reshape(-1, 4)
    return boxes, [label.name for label in known]


def match(
    name: str,
    faces: np.ndarray,
    face_classes: Sequence[str],
    detections: np.ndarray,
    detection_classes: Sequence[str],
    confidences: np.ndarray,
    *,
    overlap: float,
    least: tuple[float, float],
) -> Verdict:
    """Give each detection, in the order given, the free face of its class that it overlaps most.

    `overlap` is the least IoU of a match, `least` the smallest width and height that counts,
    pixels. A detection of a face that is too small, or itself too small, is no error.
    """
    width, height = faces[:, 2] - faces[:, 0], faces[:, 3] - faces[:, 1]
    counted = (width >= least[0]) & (height >= least[1])
    matched = np.full(len(faces), -1)
    false = []
    iou = overlaps(detections, faces)
    face_labels = np.array(face_classes, object)
    for index, label in enumerate(detection_classes):
        free = (matched < 0) & (face_labels == label) if len(faces) else np.zeros(0, bool)
        candidates = np.where(free, iou[index], 0)
        if len(faces) and candidates.max() >= overlap:
            matched[candidates.argmax()] = index
            continue
        box = detections[index]
        if box[2] - box[0] >= least[0] and box[3] - box[1] >= least[1]:
            false.append(index)
    return Verdict(
        name, faces, list(face_classes), detections, list(detection_classes), confidences,
        counted, matched, false,
    )  # fmt: skip


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union, (n, m), of (n, 4) and (m, 4) boxes x1 y1 x2 y2."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=2)
    area, other_area = (np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (boxes, others))
    union = area[:, None] + other_area[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def worst_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Lowest score first; among equals, most errors first."""
    return sorted(verdicts, key=lambda v: (v.score, -v.errors, v.name))


def best_first(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """Highest score first; among equals, most classes, then most faces."""
    return sorted(
        verdicts,
        key=lambda v: (-v.score, -len(set(v.face_classes)), -v.found, v.name),
    )


def ranking(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """All images, worst first."""
    return pd.DataFrame(
        [(v.name, v.score, v.found, v.missed, len(v.false)) for v in worst_first(verdicts)],
        columns=["image", "score", "found", "missed", "false"],
    )


def tile(
    results: Results, folder: FigureFolder, verdict: Verdict, colours: Mapping[str, str], name: str
) -> Picture:
    """The image with its boxes, for the page and as `{name}.jpg` in the report folder."""
    path = results.root / f"kitti/train/images/{verdict.name}.jpg"
    try:
        with Image.open(path) as image:
            drawn = draw(image.convert("RGB"), verdict, colours)
    except OSError as error:
        raise ReportError(f"{path}: cannot be read ({error}); run the rule kitti again") from error
    folder.save_jpeg(f"{name}.jpg", drawn)
    counts = [f"{verdict.found} found"]
    if verdict.missed:
        counts.append(f"{verdict.missed} missed")
    if verdict.false:
        counts.append(f"{len(verdict.false)} false")
    return picture(drawn, " · ".join(counts), verdict.name, TILE_WIDTH, TILE_BYTES)


def draw(image: Image.Image, verdict: Verdict, colours: Mapping[str, str]) -> Image.Image:
    """The image at twice the tile's need with labels and detections drawn on it."""
    scale = TILE_WIDTH / image.width
    image = image.resize((TILE_WIDTH, round(image.height * scale)), Image.LANCZOS)
    pen = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(size=20)
    for box, label, is_counted, detection in zip(
        verdict.faces * scale, verdict.face_classes, verdict.counted, verdict.matched, strict=True
    ):
        if not is_counted:
            _dashed(pen, box, colours[label], dash=2, gap=4)
            continue
        if detection < 0:
            pen.rectangle(tuple(box), fill=(*_rgb(colours[label]), 90))
        _dashed(pen, box, "#ffffff", dash=7, gap=5, width=4)
        _dashed(pen, box, colours[label], dash=7, gap=5, width=2)
    hidden = set(verdict.false[MOST_FALSE:])
    for index, (box, label, confidence) in enumerate(
        zip(verdict.detections * scale, verdict.detection_classes, verdict.confidences, strict=True)
    ):
        if index in hidden:
            continue
        colour = colours.get(label, "#888888")
        pen.rectangle(tuple(box), outline=colour, width=3)
        if index in verdict.false:
            pen.line((box[0], box[1], box[2], box[3]), fill=colour, width=2)
            pen.line((box[0], box[3], box[2], box[1]), fill=colour, width=2)
        _tag(pen, box, f"{confidence:.2f}", colour, font, image.size)
    return image


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _dashed(
    pen: ImageDraw.ImageDraw, box: np.ndarray, colour: str, dash: int, gap: int, width: int = 2
) -> None:
    x1, y1, x2, y2 = box
    for start in np.arange(x1, x2, dash + gap):
        for y in (y1, y2):
            pen.line((start, y, min(start + dash, x2), y), fill=colour, width=width)
    for start in np.arange(y1, y2, dash + gap):
        for x in (x1, x2):
            pen.line((x, start, x, min(start + dash, y2)), fill=colour, width=width)


def _tag(
    pen: ImageDraw.ImageDraw,
    box: np.ndarray,
    text: str,
    colour: str,
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
) -> None:
    """A small label above the box, or inside at its top where there is no room."""
    left, top, right, bottom = font.getbbox(text)
    width, height = right - left + 6, bottom - top + 6
    x = min(max(box[0], 0), size[0] - width)
    y = box[1] - height if box[1] >= height else max(box[1], 0)
    pen.rectangle((x, y, x + width, y + height), fill=colour)
    pen.text((x + 3 - left, y + 3 - top), text, fill="white", font=font)
