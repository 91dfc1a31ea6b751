"""Detections from the network's outputs, in NVIDIA's and in the corrected way."""

from dataclasses import replace

import numpy as np
import pytest
from detectnet_v2 import postprocess, spec, spec_pb2
from detectnet_v2.errors import DetectNetError

CLUSTERING = postprocess.Clustering(
    algorithm=postprocess.DBSCAN,
    coverage_threshold=0.1,
    eps=0.3,
    min_weight=1.0,
    min_height=4,
    dbscan_confidence=0.0,
    nms_confidence=0.2,
    nms_iou=0.3,
    clip=True,
    iou_epsilon=1e-5,
    inclusive=True,
)
FACE = [10.0, 10.0, 50.0, 60.0]


def cluster(boxes, coverage, **settings):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return postprocess.cluster(
        boxes, np.array(coverage, np.float32), replace(CLUSTERING, **settings)
    )


def test_a_cluster_is_the_weighted_mean_and_the_sum():
    boxes, confidence = cluster([FACE, [14, 10, 50, 64]], [0.5, 1.5])
    assert boxes.tolist() == [[13, 10, 50, 63]]
    assert confidence.tolist() == [2.0]


def test_the_whole_grid_of_one_box():
    # All 50 cells of a 5 x 10 grid predict the same box with a coverage of 1.
    bbox = np.empty((1, 4, 5, 10), np.float32)
    x, y = np.arange(10) * 16 + 0.5, np.arange(5)[:, None] * 16 + 0.5
    for side, value in enumerate((x - 0.05, y - 0.05, 16.05 - x, 16.05 - y)):
        bbox[0, side] = value / 35
    cov = np.ones((1, 1, 5, 10), np.float32)
    ((found,),) = postprocess.detections(bbox, cov, [CLUSTERING], width=160, height=80)
    assert found[0] == pytest.approx(np.array([[0.05, 0.05, 16.05, 16.05]]), abs=1e-4)
    assert found[1].tolist() == [50.0]


def test_images_and_classes_are_kept_apart():
    rng = np.random.default_rng(0)
    cov = rng.uniform(0, 1, (3, 2, 6, 10)).astype(np.float32)
    bbox = rng.uniform(0.3, 1.2, (3, 8, 6, 10)).astype(np.float32)
    settings = [CLUSTERING, replace(CLUSTERING, clip=False, min_weight=0.3)]
    together = postprocess.detections(bbox, cov, settings, width=160, height=96)
    for image in range(3):
        one = slice(image, image + 1)
        (alone,) = postprocess.detections(bbox[one], cov[one], settings, width=160, height=96)
        for found, expected in zip(together[image], alone, strict=True):
            assert np.array_equal(found[0], expected[0])
            assert np.array_equal(found[1], expected[1])
    assert together[0][0][0].min() >= 0
    assert together[0][1][0].min() < 0


def test_cells_at_the_threshold_take_no_part():
    cov = np.zeros((1, 1, 2, 2), np.float32)
    cov[0, 0, 0] = np.float32(0.1), np.float32(0.9)
    bbox = np.ones((1, 4, 2, 2), np.float32)
    settings = replace(CLUSTERING, min_weight=0.0, coverage_threshold=float(np.float32(0.1)))
    ((found,),) = postprocess.detections(bbox, cov, [settings], width=32, height=32)
    assert found[1] == pytest.approx([0.9])


def test_best_first_and_low_boxes_dropped():
    low = [100.0, 100.0, 140.0, 104.0]
    high = [200.0, 10.0, 240.0, 60.0]
    boxes, confidence = cluster([FACE, low, high], [1.0, 3.0, 2.0])
    assert boxes.tolist() == [high, FACE]
    assert confidence.tolist() == [2.0, 1.0]


def test_the_threshold_of_evaluation_includes_that_of_inference_does_not():
    assert len(cluster([FACE], [1.0], dbscan_confidence=1.0)[0]) == 1
    assert len(cluster([FACE], [1.0], dbscan_confidence=1.0, inclusive=False)[0]) == 0


def test_mean_confidence():
    _, confidence = cluster([FACE] * 3, [0.2, 0.5, 1.0], mean_confidence=True)
    assert confidence == pytest.approx([(1.7 / 3 - 0.2) / 0.8])
    # One cell has no spread: not a number, and dropped.
    assert len(cluster([FACE], [1.0], mean_confidence=True)[0]) == 0


def nvidia_nms(boxes, scores, iou, threshold):
    """NVIDIA's NMS: selection sort in place, scores read at the original places afterwards."""
    order, scores = list(range(len(scores))), scores.copy()
    for i in range(len(order)):
        best = i + int(np.argmax(scores[i:]))
        if scores[i] < scores[best]:
            order[i], order[best] = order[best], order[i]
            scores[[i, best]] = scores[[best, i]]
        for j in range(i + 1, len(order)):
            a, b = boxes[order[i]].astype(float), boxes[order[j]].astype(float)
            sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + 1
            both = np.maximum(sides, 0).prod()
            areas = [(box[2:] - box[:2] + 1).prod() for box in (a, b)]
            if both / (sum(areas) - both) > iou:
                scores[j] = 0
    kept = [order[i] for i in range(len(order)) if scores[i] > threshold]
    return sorted((-scores[i], i) for i in kept)


def test_nms_reports_nvidias_confidences_or_the_coverage():
    rng = np.random.default_rng(1)
    for _ in range(12):
        centre = rng.uniform(0, 100, (4, 2))[rng.integers(0, 4, 25)] + rng.normal(0, 4, (25, 2))
        boxes = np.concatenate([centre, centre + 40], axis=1).astype(np.float32)
        coverage = (rng.permutation(25) / 25 + 0.01).astype(np.float32)
        settings = {"algorithm": postprocess.NMS}
        found, spoilt = cluster(boxes, coverage, spoilt_scores=True, **settings)
        expected = nvidia_nms(boxes, coverage, 0.3, 0.2)
        assert sorted(zip((-spoilt).tolist(), found.tolist(), strict=True)) == sorted(
            (score, boxes[i].tolist()) for score, i in expected
        )
        right, confidence = cluster(boxes, coverage, **settings)
        assert {tuple(box) for box in right.tolist()} == {tuple(box) for box in found.tolist()}
        assert all(
            coverage[(boxes == box).all(axis=1)] == score
            for box, score in zip(right, confidence, strict=True)
        )


def test_nms_does_not_look_at_the_height():
    low = [100.0, 100.0, 140.0, 103.0]
    assert len(cluster([low], [0.9], algorithm=postprocess.NMS)[0]) == 1


def test_hybrid_suppresses_among_the_members_of_clusters():
    lone = [300.0, 10.0, 340.0, 60.0]
    boxes = [FACE, [12, 10, 52, 60], [14, 10, 54, 60], lone]
    found, confidence = cluster(boxes, [0.6, 0.9, 0.5, 0.8], algorithm=postprocess.HYBRID)
    # The lone box gathers too little coverage for a cluster; of the others the best stays.
    assert found.tolist() == [[12, 10, 52, 60]]
    assert confidence.tolist() == [np.float32(0.9)]


@pytest.mark.parametrize(
    ("value", "mode", "expected"),
    [
        (0.05, spec_pb2.AUTO, 0.05),
        (0.0, spec_pb2.AUTO, 1.0),
        (1.0, spec_pb2.AUTO, 1.0),
        (4.0, spec_pb2.AUTO, 4.0),
        (0.05, spec_pb2.INTEGER, 1.0),
        (2.7, spec_pb2.INTEGER, 2.0),
        (0.0, spec_pb2.WEIGHT, 0.0),
        (3.0, spec_pb2.WEIGHT, 3.0),
    ],
)
def test_the_least_weight_of_both_dialects(value, mode, expected):
    assert postprocess.min_weight(value, mode) == expected


@pytest.fixture
def experiment(repository):
    return spec.load_experiment(repository / "tests/detectnet_v2/specs/tao5_train.txt")


def test_evaluation_exchanges_the_thresholds_unless_corrected(experiment):
    config = experiment.postprocessing_config.target_class_config["mask"].clustering_config
    config.dbscan_confidence_threshold, config.nms_confidence_threshold = 0.75, 0.25
    clustering = postprocess.evaluation_clustering(experiment)[0]
    assert (clustering.dbscan_confidence, clustering.nms_confidence) == (0.25, 0.75)
    assert clustering.spoilt_scores
    experiment.native.postprocessing = spec_pb2.NativeConfig.CORRECTED
    clustering = postprocess.evaluation_clustering(experiment)[0]
    assert (clustering.dbscan_confidence, clustering.nms_confidence) == (0.75, 0.25)
    assert not clustering.spoilt_scores
    assert (clustering.clip, clustering.iou_epsilon, clustering.inclusive) == (True, 1e-5, True)


def test_evaluation_has_no_hybrid_unless_corrected(experiment):
    config = experiment.postprocessing_config.target_class_config["no-mask"].clustering_config
    config.clustering_algorithm = postprocess.HYBRID
    with pytest.raises(DetectNetError, match=r'"no-mask"\]: NVIDIA\'s evaluation has no HYBRID'):
        postprocess.evaluation_clustering(experiment)
    experiment.native.postprocessing = spec_pb2.NativeConfig.CORRECTED
    assert postprocess.evaluation_clustering(experiment)[1].algorithm == postprocess.HYBRID


def test_inference_has_settings_of_its_own(repository):
    inference = spec.load_inference(repository / "tests/detectnet_v2/specs/tlt2_inference_tlt.txt")
    inference.inferencer_config.target_classes.append("hat")
    clusterings = postprocess.inference_clustering(inference)
    assert len(clusterings) == 3
    clustering = clusterings[2]
    assert clustering.dbscan_confidence == pytest.approx(0.9)
    assert clustering.min_weight == pytest.approx(0.05)
    assert (clustering.nms_iou, clustering.nms_confidence) == (0.3, 0.1)
    assert (clustering.clip, clustering.iou_epsilon, clustering.inclusive) == (False, 0.01, False)
    entries = inference.bbox_handler_config.classwise_bbox_handler_config
    entries["mask"].confidence_model = "mlp"
    with pytest.raises(DetectNetError, match='class "mask": confidence_model: "mlp" must be'):
        postprocess.inference_clustering(inference)
    del entries["mask"], entries["default"]
    with pytest.raises(DetectNetError, match='no entry "mask" and no "default"'):
        postprocess.inference_clustering(inference)


def test_what_was_used_is_told(experiment):
    names = ["mask", "no-mask"]
    described = postprocess.describe(postprocess.evaluation_clustering(experiment), names)
    assert described["mask"] == {
        "mode": "NVIDIA",
        "algorithm": "DBSCAN",
        "coverage_threshold": 0.005,
        "dbscan_eps": 0.2,
        "dbscan_min_weight": 1.0,
        "minimum_bounding_box_height": 20,
        "confidence_threshold": 0.0,
    }
    experiment.native.postprocessing = spec_pb2.NativeConfig.CORRECTED
    described = postprocess.describe(postprocess.evaluation_clustering(experiment), names)
    assert {entry["mode"] for entry in described.values()} == {"CORRECTED"}
