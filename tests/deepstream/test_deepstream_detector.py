"""nvinfer's arithmetic where the answer is known: preprocessing, decoding, clustering, filters."""

import math
import struct
from dataclasses import replace

import numpy as np
import pytest
from deepstream import inferconfig
from deepstream.clustering import cluster, dbscan, nms, overlaps
from deepstream.decode import Candidates, decode
from deepstream.detector import Detector
from deepstream.errors import DeepStreamError
from deepstream.inferconfig import DBSCAN, HYBRID, NMS, NO_CLUSTERING
from deepstream.network import Network, load_model
from deepstream.preprocess import Preprocessor
from deepstream.surface import Surface


@pytest.fixture
def config(release):
    return inferconfig.load(release() / "config_infer_primary.txt")


@pytest.fixture
def attributes(config):
    return config.classes[0]


def candidates(*rows):
    """Candidates from (x1, y1, x2, y2, confidence) rows."""
    table = np.array(rows, np.float32).reshape(-1, 5)
    return Candidates(table[:, :4], table[:, 4])


def test_decode_places_boxes_on_grid_points_half_a_pixel_off_the_cell_corner():
    bbox = np.zeros((4, 2, 3), np.float32)
    coverage = np.zeros((1, 2, 3), np.float32)
    bbox[:, 1, 2] = [0.1, 0.2, 0.3, 0.4]
    coverage[0, 1, 2] = 0.5
    (found,) = decode(bbox, coverage, width=48, height=32, thresholds=[0.5])
    # The grid point of cell (row 1, column 2) is 16 * 2 + 0.5, 16 * 1 + 0.5.
    expected = [32.5 - 3.5, 16.5 - 7.0, 32.5 + 10.5, 16.5 + 14.0]
    np.testing.assert_allclose(found.boxes, [expected], rtol=1e-6)
    np.testing.assert_array_equal(found.confidence, np.float32([0.5]))


def test_decode_clips_to_the_last_pixel_and_drops_inverted_boxes():
    bbox = np.zeros((4, 1, 3), np.float32)
    coverage = np.ones((1, 1, 3), np.float32)
    bbox[:, 0, 0] = [10, 10, 10, 10]
    bbox[:, 0, 1] = [-0.4, 0, -0.4, 0]
    bbox[:, 0, 2] = [0, 0, 0, 0]
    (found,) = decode(bbox, coverage, width=48, height=16, thresholds=[0.2])
    np.testing.assert_array_equal(found.boxes, [[0, 0, 47, 15], [32.5, 0.5, 32.5, 0.5]])


def test_decode_takes_the_stride_from_the_ratio_rounded_up():
    bbox, coverage = np.zeros((4, 2, 2), np.float32), np.ones((1, 2, 2), np.float32)
    (found,) = decode(bbox, coverage, width=30, height=17, thresholds=[0.5])
    np.testing.assert_array_equal(found.boxes[3, :2], [15.5, 9.5])


def test_decode_reads_four_channels_a_class_and_no_class_without_a_threshold():
    bbox = np.arange(8, dtype=np.float32).reshape(8, 1, 1) / 35
    coverage = np.ones((2, 1, 1), np.float32)
    first, second = decode(bbox, coverage, width=16, height=16, thresholds=[0.5, 0.5])
    np.testing.assert_allclose(first.boxes, [[0.5, 0, 2.5, 3.5]], atol=1e-6)
    np.testing.assert_allclose(second.boxes, [[0, 0, 6.5, 7.5]], atol=1e-6)
    assert len(decode(bbox, coverage, width=16, height=16, thresholds=[0.5])) == 1


def test_overlap_has_no_extra_pixel():
    boxes = np.float32([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(overlaps(boxes[:1], boxes), [[1, 50 / 150, 0]], rtol=1e-6)


def test_nms_drops_only_what_exceeds_the_threshold():
    boxes = np.float32([[0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 6], [40, 0, 50, 10]])
    confidence = np.float32([0.9, 0.8, 0.7, 0.95])
    # IoU with the best is exactly 0.5 for the second box, which therefore stays; 0.6 goes.
    assert nms(boxes, confidence, 0.5).tolist() == [3, 0, 1]


def test_nms_suppresses_by_survivors_only():
    boxes = np.float32([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    # The middle one goes because of the first; the last overlaps only the middle one enough.
    assert nms(boxes, np.float32([0.9, 0.8, 0.7]), 0.3).tolist() == [0, 2]


def test_cluster_nms_keeps_strictly_more_than_the_post_threshold_and_then_the_top(attributes):
    found = candidates((0, 0, 9, 9, 0.5), (20, 0, 29, 9, 0.6), (40, 0, 49, 9, 0.7))
    limits = replace(attributes, pre_cluster_threshold=0.1, post_cluster_threshold=0.5, topk=-1)
    assert cluster(found, limits, NMS).confidence.tolist() == pytest.approx([0.7, 0.6])
    one = replace(limits, topk=1)
    assert cluster(found, one, NMS).confidence.tolist() == pytest.approx([0.7])
    assert len(cluster(found, replace(limits, topk=0), NMS)) == 0


def test_cluster_applies_the_pre_threshold_again_inclusively(attributes):
    found = candidates((0, 0, 9, 9, 0.5), (20, 0, 29, 9, 0.4))
    limits = replace(attributes, pre_cluster_threshold=0.5, post_cluster_threshold=0.0)
    assert len(cluster(found, limits, NMS)) == 1


def test_cluster_mode_4_only_keeps_the_top(attributes):
    found = candidates((0, 0, 9, 9, 0.5), (0, 0, 9, 9, 0.6), (0, 0, 9, 9, 0.7))
    limits = replace(attributes, pre_cluster_threshold=0, post_cluster_threshold=0.9, topk=2)
    kept = cluster(found, limits, NO_CLUSTERING)
    assert sorted(kept.confidence.tolist()) == pytest.approx([0.6, 0.7])


def test_dbscan_without_min_boxes_lets_every_grid_cell_through(attributes):
    found = candidates(*[(0, 0, 30, 30, 0.5 + i / 100) for i in range(10)])
    limits = replace(attributes, pre_cluster_threshold=0.2, post_cluster_threshold=0, eps=0.7)
    skipped = replace(limits, min_boxes=0, topk=-1)
    assert len(cluster(found, skipped, DBSCAN)) == 10
    assert len(cluster(found, replace(skipped, min_boxes=1), DBSCAN)) == 1


def test_dbscan_merges_by_confidence_and_drops_noise():
    found = candidates((0, 0, 10, 10, 0.75), (2, 0, 12, 10, 0.25), (50, 50, 60, 60, 0.9))
    merged = dbscan(found, eps=0.5, min_boxes=2)
    np.testing.assert_allclose(merged.boxes, [[0.5, 0, 10.5, 10]], rtol=1e-5)
    np.testing.assert_allclose(merged.confidence, [0.75])


def test_dbscan_joins_a_chain_and_counts_a_box_as_its_own_neighbour():
    chain = [(4 * i, 0, 4 * i + 10, 10, 0.5) for i in range(4)]
    found = candidates(*chain, (200, 0, 210, 10, 0.5))
    # Neighbours in the chain have IoU 6 / 14, the ends none at all.
    assert len(dbscan(found, eps=0.6, min_boxes=1)) == 2
    assert len(dbscan(found, eps=0.5, min_boxes=1)) == 5
    assert len(dbscan(found, eps=0.6, min_boxes=2)) == 1


def test_dbscan_score_and_area_filters():
    found = candidates((0, 0, 10, 10, 0.3), (1, 0, 11, 10, 0.3))
    assert len(dbscan(found, eps=0.5, min_boxes=1, min_score=0.7)) == 0
    assert len(dbscan(found, eps=0.5, min_boxes=1, min_score=0.59)) == 1
    # sqrt(area) / hits may not exceed 60.
    assert len(dbscan(candidates((0, 0, 61, 61, 0.9)), eps=0.5, min_boxes=1)) == 0
    assert len(dbscan(candidates(*[(0, 0, 61, 61, 0.9)] * 2), eps=0.5, min_boxes=1)) == 1


def test_hybrid_merges_and_then_suppresses(attributes):
    found = candidates(
        *[(0, 0, 20, 20, 0.8)] * 2, *[(8, 0, 28, 20, 0.6)] * 2, (60, 60, 80, 80, 0.9)
    )
    limits = replace(
        attributes,
        pre_cluster_threshold=0.1,
        post_cluster_threshold=0,
        nms_iou_threshold=0.3,
        eps=0.2,
        min_boxes=2,
        topk=-1,
    )
    assert len(cluster(found, limits, DBSCAN)) == 2
    kept = cluster(found, limits, HYBRID)
    np.testing.assert_allclose(kept.boxes, [[0, 0, 20, 20]])


def test_clusters_of_nothing_are_nothing(attributes):
    limits = replace(attributes, eps=0.5, min_boxes=1)
    for mode in (DBSCAN, NMS, HYBRID, NO_CLUSTERING):
        assert len(cluster(candidates(), limits, mode)) == 0


def test_detector_finds_squares_where_they_are(config, synthetic):
    image = synthetic.picture([(64, 32, synthetic.red), (224, 112, synthetic.green)])
    (objects,) = Detector(config, threads=1).detect([Surface.from_rgb(image)])
    assert objects.class_ids.tolist() == [0, 1]
    np.testing.assert_allclose(objects.confidence, 1.0, rtol=1e-5)
    np.testing.assert_allclose(objects.boxes, [[64, 32, 112, 80], [224, 112, 272, 160]], atol=1e-4)


def test_detector_works_in_streammux_pixels(config, synthetic):
    """Twice as wide and three times as high a frame gives boxes of its own pixels."""
    image = synthetic.picture([(64, 32, synthetic.red)])
    frame = Surface.from_rgb(image.repeat(3, axis=0).repeat(2, axis=1))
    (objects,) = Detector(config, threads=1).detect([frame])
    np.testing.assert_allclose(objects.boxes, [[128, 96, 224, 240]], atol=0.01)
    np.testing.assert_allclose(objects.confidence, 1.0, atol=0.02)


def test_detector_keeps_the_batch_in_order(config, synthetic):
    pictures = [synthetic.picture([(left, 32, synthetic.red)]) for left in (0, 96, 256)]
    batch = replace(config, batch_size=3)
    found = Detector(batch, threads=1).detect([Surface.from_rgb(image) for image in pictures])
    assert [round(float(objects.boxes[0, 0])) for objects in found] == [0, 96, 256]


def test_detector_fills_up_a_fixed_batch(release, synthetic, tmp_path):
    model = synthetic.square_model(tmp_path / "batch.onnx", batch=2)
    config = inferconfig.load(release(model=model, streams=2) / "config_infer_primary.txt")
    image = synthetic.picture([(64, 32, synthetic.red)])
    (objects,) = Detector(config, threads=1).detect([Surface.from_rgb(image)])
    assert len(objects) == 1
    with pytest.raises(DeepStreamError, match="fixed to batches of 2"):
        Detector(replace(config, batch_size=4), threads=1)


def test_swapped_dims_are_refused_by_a_model_of_fixed_size(config):
    swapped = replace(config, dims=(3, config.dims[2], config.dims[1]))
    with pytest.raises(DeepStreamError, match=r"infer-dims=3;320;192 .* is 3x192x320"):
        Detector(swapped, threads=1)


def test_etlt_needs_key_codec_and_onnx(squares, tmp_path, monkeypatch, codec):
    path = tmp_path / "model.etlt"
    codec.encrypt(squares, path, "key")
    with pytest.raises(
        DeepStreamError, match=r"model\.etlt: .* has no NVIDIA codec .* run the \.onnx"
    ):
        load_model(path, "key")
    monkeypatch.setenv("ETLT_CODEC_PYTHON", str(codec.python))
    assert Network(path, key="key", threads=1).dims == (3, 192, 320)
    monkeypatch.delenv("ETLT_KEY", raising=False)
    with pytest.raises(DeepStreamError, match=r"set the environment variable ETLT_KEY"):
        load_model(path, None)
    monkeypatch.setenv("ETLT_KEY", "key")
    assert load_model(path, None) == squares.read_bytes()
    with pytest.raises(DeepStreamError, match=r"the key in ETLT_KEY is not the one"):
        load_model(path, "another")
    path.write_bytes(struct.pack("<i", 7) + b"input_1" + b"payload")
    with pytest.raises(DeepStreamError, match="holds UFF"):
        load_model(path, "key")


def test_size_and_region_limits_are_frame_pixels(config, synthetic):
    image = synthetic.picture([(64, 32, synthetic.red)])
    frame = Surface.from_rgb(image.repeat(2, axis=0).repeat(2, axis=1))

    def count(**limits):
        classes = (replace(config.classes[0], **limits), config.classes[1])
        return len(Detector(replace(config, classes=classes), threads=1).detect([frame])[0])

    # The square is 96 pixels wide and high, from row 64 to 160 of 384.
    assert count(min_width=95) == 1 and count(min_width=97) == 0
    assert count(max_height=97) == 1 and count(max_height=95) == 0
    assert count(roi_top_offset=63) == 1 and count(roi_top_offset=66) == 0
    assert count(roi_bottom_offset=222) == 1 and count(roi_bottom_offset=226) == 0


def test_filtered_classes_are_not_reported(config, synthetic):
    image = synthetic.picture([(64, 32, synthetic.red), (224, 112, synthetic.green)])
    silent = replace(config, filtered_classes=frozenset({1}))
    (objects,) = Detector(silent, threads=1).detect([Surface.from_rgb(image)])
    assert objects.class_ids.tolist() == [0]


def test_preprocessing_scales_subtracts_and_orders_colours(config):
    image = np.empty((192, 320, 3), np.uint8)
    image[:] = (200, 100, 50)
    tensor = np.empty((3, 192, 320), np.float32)

    def means(**changes):
        Preprocessor(replace(config, **changes), (3, 192, 320)).fill(
            Surface.from_rgb(image), tensor
        )
        return tensor.mean(axis=(1, 2)).tolist()

    assert means() == pytest.approx([200 / 255, 100 / 255, 50 / 255], rel=1e-5)
    assert means(color_format=1) == pytest.approx([50 / 255, 100 / 255, 200 / 255], rel=1e-5)
    assert means(scale_factor=2.0, offsets=(10.0, 0.0, 60.0)) == pytest.approx([380, 200, -20])
    with pytest.raises(DeepStreamError, match="offsets has 2 values for 3 channels"):
        means(offsets=(1.0, 2.0))


def test_aspect_ratio_pads_right_and_bottom_or_around(config, synthetic):
    """A square frame of 400 pixels fits the network's 320 x 192 as 192 x 192."""
    white = Surface.from_rgb(np.full((400, 400, 3), 255, np.uint8))
    tensor = np.empty((3, 192, 320), np.float32)
    keeping = replace(config, maintain_aspect_ratio=True)
    Preprocessor(keeping, (3, 192, 320)).fill(white, tensor)
    assert tensor[0].sum(axis=0).nonzero()[0].tolist() == list(range(192))
    around = Preprocessor(replace(keeping, symmetric_padding=True), (3, 192, 320))
    around.fill(white, tensor)
    assert tensor[0].sum(axis=0).nonzero()[0].tolist() == list(range(64, 256))
    assert around.placement(400, 400) == (192 / 400, 192 / 400, 64, 0)


def test_boxes_come_back_from_a_padded_input(config, synthetic):
    image = np.full((400, 400, 3), 64, np.uint8)
    # 48 network pixels at (48, 32) are 100 frame pixels at (100, 66.7).
    image[67:167, 100:200] = synthetic.red
    keeping = replace(config, maintain_aspect_ratio=True)
    (objects,) = Detector(keeping, threads=1).detect([Surface.from_rgb(image)])
    np.testing.assert_allclose(objects.boxes, [[100, 66.67, 200, 166.67]], atol=0.1)


@pytest.mark.parametrize(("bt709", "full_range"), [(False, False), (True, False), (False, True)])
def test_colours_survive_the_planes(bt709, full_range):
    """ITU-R BT.601 and BT.709 formulas for a plain red picture."""
    red, blue = (0.2126, 0.0722) if bt709 else (0.299, 0.114)
    luma = 255 * red
    cb, cr = (0 - luma) / (2 * (1 - blue)), (255 - luma) / (2 * (1 - red))
    if full_range:
        values = (luma, 128 + cb, 128 + cr)
    else:
        values = (16 + luma * 219 / 255, 128 + cb * 224 / 255, 128 + cr * 224 / 255)
    planes = tuple(
        np.full((32 // shrink, 64 // shrink), min(255, round(value)), np.uint8)
        for value, shrink in zip(values, (1, 2, 2), strict=True)
    )
    surface = Surface(64, 32, planes=planes, bt709=bt709, full_range=full_range)
    rgb = surface.to_rgb().reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(rgb, (255, 0, 0), atol=3)
    half = surface.resized(32, 16).to_rgb()
    assert half.shape == (16, 32, 3)
    assert math.isclose(half[..., 0].mean(), 255, abs_tol=3)
