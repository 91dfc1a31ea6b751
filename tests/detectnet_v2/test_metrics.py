"""Average precision: NVIDIA's figures with their errors, corrected ones, COCO's."""

import numpy as np
import pytest
from detectnet_v2 import metrics, spec
from detectnet_v2.metrics import INTEGRATE, SAMPLE

SPECS = "tests/detectnet_v2/specs"
FACE = [100.0, 100.0, 150.0, 160.0]


def curve(hits, faces):
    return metrics.precision_recall(np.array(hits, bool), faces)


@pytest.mark.parametrize(
    ("hits", "faces", "integrate", "sample", "corrected"),
    [
        # A perfect detector of N faces gets (N - 1) / N.
        ([1], 1, 0.0, 1.0, 1.0),
        ([1, 1], 2, 0.5, 1.0, 1.0),
        ([1] * 4, 4, 0.75, 1.0, 1.0),
        ([0, 1, 1, 1, 1], 4, 0.75, 0.8, 0.8),
        ([1, 0, 1, 1, 0], 4, 0.416667, 0.613636, 0.625),
        ([1, 1, 1, 1, 0], 4, 0.75, 1.0, 1.0),
        ([0, 0], 3, 0.0, 0.0, 0.0),
        ([], 3, 0.0, 0.0, 0.0),
        ([0], 0, 0.0, 0.0, 0.0),
    ],
)
def test_average_precision(hits, faces, integrate, sample, corrected):
    precision, recall = curve(hits, faces)
    average = metrics.average_precision_of
    assert average(precision, recall, INTEGRATE) == pytest.approx(integrate, abs=1e-6)
    assert average(precision, recall, SAMPLE) == pytest.approx(sample, abs=1e-6)
    assert average(precision, recall, INTEGRATE, corrected=True) == pytest.approx(corrected)


def integral(precision, recall):
    """NVIDIA's formula, term by term."""
    distinct = sorted(set(recall))
    first = [list(recall).index(value) for value in distinct]
    return sum(
        (distinct[i + 1] - distinct[i]) * max(precision[first[i] : first[-1]])
        for i in range(len(distinct) - 1)
    )


def test_integral_of_random_curves():
    rng = np.random.default_rng(1)
    for _ in range(200):
        hits = rng.random(rng.integers(1, 40)) < rng.random()
        precision, recall = curve(hits, max(hits.sum(), 1) + rng.integers(3))
        expected = integral(precision, recall)
        assert metrics.average_precision_of(precision, recall, INTEGRATE) == pytest.approx(expected)


def overlap(a, b):
    """IoU with a border of one pixel, of whole coordinates."""
    width = min(a[2], b[2]) - max(a[0], b[0]) + 1
    height = min(a[3], b[3]) - max(a[1], b[1]) + 1
    both = max(width, 0) * max(height, 0)
    return both / (sum((c[2] - c[0] + 1) * (c[3] - c[1] + 1) for c in (a, b)) - both)


def match_one_by_one(found, found_frame, truth, truth_frame, threshold):
    """The matching as a loop."""
    taken, hits = set(), []
    for box, frame in zip(found, found_frame, strict=True):
        corners = [round(float(value)) for value in box]
        rivals = [
            (overlap(corners, [round(float(v)) for v in truth[j]]), -j)
            for j in np.flatnonzero(truth_frame == frame)
        ]
        best, chosen = max(rivals, default=(0, None))
        hit = chosen is not None and best >= threshold and chosen not in taken
        if hit:
            taken.add(chosen)
        hits.append(hit)
    return hits


def test_match_agrees_with_a_loop():
    rng = np.random.default_rng(2)
    for _ in range(100):
        frames, per_frame = 4, 5
        truth_frame = np.sort(rng.integers(0, frames, rng.integers(0, per_frame * frames)))
        corner = rng.uniform(0, 20, (len(truth_frame), 2))
        truth = np.concatenate([corner, corner + rng.uniform(3, 12, corner.shape)], 1)
        found_frame = rng.integers(0, frames + 1, 30)
        corner = rng.uniform(0, 20, (30, 2))
        found = np.concatenate([corner, corner + rng.uniform(3, 12, corner.shape)], 1)
        arguments = (found.astype(np.float32), found_frame, truth.astype(np.float32), truth_frame)
        expected = match_one_by_one(*arguments, 0.3)
        assert metrics.match(*arguments, 0.3).tolist() == expected


def test_the_best_ground_truth_counts_even_when_it_is_taken():
    truth = np.array([[0, 0, 10, 10], [0, 0, 10, 14]], np.float32)
    found = np.array([[0, 0, 10, 10], [0, 0, 10, 11]], np.float32)
    frame = np.zeros(2, int)
    assert metrics.match(found, frame, truth, frame, 0.5).tolist() == [True, False]


def test_coordinates_are_rounded_half_to_even():
    # 0.5 -> 0 and 1.5 -> 2: widths of 11 and 9 pixels; unrounded they would be equal.
    truth = np.array([[0.5, 0, 10, 9]], np.float32)
    found = np.array([[1.5, 0, 10, 9]], np.float32)
    frame = np.zeros(1, int)
    assert metrics.match(found, frame, truth, frame, 9 / 11).tolist() == [True]
    assert metrics.match(found, frame, truth, frame, 9 / 11 + 1e-6).tolist() == [False]


@pytest.fixture
def experiment(repository):
    return spec.load_experiment(repository / SPECS / "tlt2_train.txt")


def found(boxes, confidence):
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(confidence, np.float32)


NOTHING = found([], [])


def faces(*boxes, classes=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return boxes, np.array(classes or [0] * len(boxes), np.int32)


def test_a_perfect_detector(experiment):
    truth = [faces(FACE, [300, 100, 350, 160], classes=[0, 1])] * 4
    detections = [[found([FACE], [0.9]), found([[300, 100, 350, 160]], [0.8])]] * 4
    result = metrics.evaluate_detections(truth, detections, experiment)
    assert result.average_precision == pytest.approx({"mask": 75, "no-mask": 75})
    assert result.mean_average_precision == pytest.approx(75)
    assert result.corrected == pytest.approx({"mask": 100, "no-mask": 100})
    assert result.coco["AP"] == pytest.approx(100)
    assert result.coco["per_class"]["no-mask"] == pytest.approx({"AP": 100, "AP50": 100})


def test_a_class_without_faces_counts_as_zero_in_the_mean(experiment):
    truth = [faces(FACE)] * 4
    detections = [[found([FACE], [0.9]), found([FACE], [0.1])]] * 4
    result = metrics.evaluate_detections(truth, detections, experiment)
    assert result.average_precision == pytest.approx({"mask": 75, "no-mask": 0})
    assert result.mean_average_precision == pytest.approx(37.5)
    assert result.coco["AP"] == pytest.approx(100)
    assert result.coco["per_class"]["no-mask"] == {"AP": None, "AP50": None}


def test_small_faces_are_false_positives_for_nvidia_and_ignored_by_coco(experiment):
    small = [10.0, 10.0, 30.0, 29.0]
    truth = [faces(FACE, small)] * 2
    larger = [10.0, 10.0, 30.0, 31.0]
    detections = [[found([larger, FACE], [0.9, 0.5]), NOTHING]] * 2
    result = metrics.evaluate_detections(truth, detections, experiment)
    curve = result.curves["mask"]
    assert curve.faces == 2
    assert curve.precision.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert result.coco["per_class"]["mask"]["AP50"] == pytest.approx(100)


def test_frames_of_the_last_batch_count_twice_for_nvidia_only(experiment):
    truth = [faces(FACE), faces()]
    detections = [[found([FACE], [0.9]), NOTHING], [found([FACE], [0.95]), NOTHING]]
    once = metrics.evaluate_detections(truth, detections, experiment)
    twice = metrics.evaluate_detections(truth, detections, experiment, wrapped=3)
    assert once.curves["mask"].faces == 1
    # Frames 0 1 | 0 1 0: three times the first, twice the second.
    assert twice.curves["mask"].faces == 3
    assert len(twice.curves["mask"].confidence) == 5
    assert once.coco == twice.coco
    assert once.corrected == twice.corrected


def test_nothing_found_and_no_images(experiment):
    empty = metrics.evaluate_detections([faces(FACE)], [[NOTHING, NOTHING]], experiment)
    assert empty.mean_average_precision == 0
    assert empty.coco["AP"] == 0
    none = metrics.evaluate_detections([], [], experiment, coco=False)
    assert none.mean_average_precision == 0


def test_coco_agrees_with_its_definition(experiment):
    # One face found with an IoU of 0.72: five of the ten thresholds from 0.50 to 0.95 hold.
    face = [0.0, 0.0, 100.0, 100.0]
    detections = [[found([[0, 0, 72, 100]], [0.5]), NOTHING]]
    result = metrics.evaluate_detections([faces(face)], detections, experiment)
    assert result.coco["per_class"]["mask"] == pytest.approx({"AP": 50, "AP50": 100})
