"""Best and worst images: how faces and detections are matched, ranked and drawn."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report.drawing import FigureFolder, class_colours, style
from report.errors import ReportError
from report.results import Results
from report.sections import examples
from report.sections.examples import match, overlaps


def verdict(faces, detections, confidences=None):
    """Match faces and detections, each a class and a box; largest confidence first."""
    return match(
        "image",
        np.array([box for _, box in faces], float).reshape(-1, 4),
        [name for name, _ in faces],
        np.array([box for _, box in detections], float).reshape(-1, 4),
        [name for name, _ in detections],
        np.array(confidences or [0.9] * len(detections)),
        overlap=0.5,
        least=(10, 20),
    )


FACE = ("mask", (100, 100, 140, 150))


def test_overlap_of_boxes():
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30.0]])
    np.testing.assert_allclose(
        overlaps(boxes, np.array([[0, 0, 10, 10], [5, 0, 15, 10.0]])), [[1, 1 / 3], [0, 0]]
    )
    assert overlaps(boxes, np.zeros((0, 4))).shape == (2, 0)


def test_found_missed_and_false():
    result = verdict(
        [FACE, ("no-mask", (200, 100, 240, 150))],
        [("mask", (102, 101, 141, 149)), ("mask", (200, 100, 240, 150))],
    )
    assert (result.found, result.missed, result.false) == (1, 1, [1])
    assert result.score == pytest.approx(1 / 3)


def test_a_face_is_found_once():
    result = verdict([FACE], [FACE, FACE], [0.9, 0.8])
    assert (result.found, result.false) == (1, [1])


def test_each_detection_takes_the_free_face_that_it_overlaps_most():
    near = ("mask", (110, 100, 150, 150))
    result = verdict([FACE, near], [near, FACE])
    assert list(result.matched) == [1, 0]


def test_small_faces_and_small_detections_do_not_count():
    small = ("mask", (10, 10, 25, 25))
    assert verdict([small], []).errors == 0
    assert verdict([small], [small]).found == 0
    assert verdict([], [small]).errors == 0
    assert verdict([], [small]).score == 1.0


def test_no_faces_and_no_detections():
    result = verdict([], [])
    assert (result.found, result.errors, result.score) == (0, 0, 1.0)


def test_worst_images_have_the_lowest_score_then_the_most_errors():
    one = verdict([FACE], [])
    two = verdict([FACE, ("mask", (200, 100, 240, 150))], [])
    good = verdict([FACE], [FACE])
    assert examples.worst_first([good, one, two]) == [two, one, good]
    assert examples.best_first([one, good, two])[0] is good


def test_best_images_show_both_classes():
    other = ("no-mask", (200, 100, 240, 150))
    third = ("mask", (250, 100, 290, 150))
    plain = verdict([FACE, third], [FACE, third])
    mixed = verdict([FACE, other], [FACE, other])
    assert examples.best_first([plain, mixed])[0] is mixed


def test_judge_reads_the_fold_its_labels_and_confident_detections(full_run):
    results = Results(full_run.root, full_run.config)
    verdicts = examples.judge(results, "retrained/0.6")
    assert len(verdicts) == 40
    assert {v.name for v in verdicts} == {
        path.stem for path in (full_run.root / "kitti/train/images").iterdir()
    }
    labels = sum(len(v.faces) for v in verdicts)
    lines = (p.read_text() for p in (full_run.root / "kitti/train/labels").iterdir())
    assert labels == sum(len(text.splitlines()) for text in lines)
    # Every image also has a detection of confidence 0.06, below every best F1 score.
    assert min(v.confidences.min() for v in verdicts if len(v.confidences)) > 0.06


def test_galleries_rank_all_images_and_show_some(full_run, tmp_path):
    results = Results(full_run.root, full_run.config)
    with style():
        worst, best = examples.galleries(results, FigureFolder(tmp_path), "retrained/0.6")
    table = pd.read_csv(tmp_path / "examples.csv")
    assert len(table) == 40
    assert table["score"].is_monotonic_increasing
    assert [p.caption for p in worst.pictures] == list(table["image"][: examples.WORST])
    assert all("missed" in p.title or "false" in p.title for p in worst.pictures)
    assert all(p.title.endswith("found") for p in best.pictures)
    assert (tmp_path / "worst_01.jpg").is_file()
    assert (tmp_path / "best_01.jpg").is_file()


def test_detections_have_the_class_colour_and_missed_faces_a_tint():
    colours = class_colours(["mask", "no-mask"])
    image = Image.new("RGB", (examples.TILE_WIDTH, 300), "#808080")
    drawn = examples.draw(image, verdict([FACE], [("no-mask", (300, 100, 340, 150))]), colours)
    inside = drawn.getpixel((110, 125))
    assert inside[1] > inside[0] + 20
    edge = drawn.getpixel((301, 130))
    assert edge == tuple(int(colours["no-mask"][i : i + 2], 16) for i in (1, 3, 5))
    assert image.getpixel((110, 125)) == (128, 128, 128)


def test_only_the_most_confident_false_detections_are_drawn():
    boxes = [("mask", (30 * i + 2, 100, 30 * i + 22, 140)) for i in range(21)]
    result = verdict([], boxes)
    assert len(result.false) == 21
    image = Image.new("RGB", (examples.TILE_WIDTH, 300), "#808080")
    drawn = np.asarray(examples.draw(image, result, class_colours(["mask", "no-mask"])))
    changed = (drawn != 128).any(axis=(0, 2))
    assert changed[: 30 * examples.MOST_FALSE - 8].any()
    assert not changed[30 * examples.MOST_FALSE + 30 :].any()


def test_run_without_errors_says_so(run, tmp_path):
    rows = []
    for path in (run.root / "kitti/train/labels").iterdir():
        for line in path.read_text().splitlines():
            fields = line.split()
            rows.append((f"images/{path.stem}.jpg", fields[0], *fields[4:8], 0.99))
    columns = ["image", "class", "x1", "y1", "x2", "y2", "confidence"]
    target = run.root / "retrained/0.6/evaluation/fold0/detections.csv"
    pd.DataFrame(rows, columns=columns).to_csv(target, index=False)
    results = Results(run.root, run.config)
    worst, best = examples.galleries(results, FigureFolder(tmp_path), "retrained/0.6")
    assert worst.kind == "note"
    assert len(best.pictures) == examples.BEST


def test_missing_photograph_is_named(run, tmp_path):
    run.remove("kitti/train/images/*.jpg")
    with pytest.raises(ReportError, match=r"kitti/train/images/.*\.jpg: cannot be read"):
        examples.galleries(Results(run.root, run.config), FigureFolder(tmp_path), "retrained/0.6")


def test_damaged_label_file_is_named(run):
    path = next((run.root / "kitti/train/labels").iterdir())
    path.write_text("mask 0 0\n")
    with pytest.raises(ReportError, match=r"labels/.*\.txt:1: 3 fields"):
        examples.judge(Results(run.root, run.config), "retrained/0.6")
