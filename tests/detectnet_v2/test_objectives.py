import numpy as np
import pytest
from detectnet_v2 import objectives, spec_pb2


def test_references_lie_half_a_pixel_inside_the_cell_corner():
    gx, gy = objectives.grid_references(3, 2)
    assert gx.tolist() == [0.5, 16.5, 32.5]
    assert gy.tolist() == [0.5, 16.5]


def test_an_offset_that_is_left_out_is_zero_and_a_missing_objective_is_the_usual_one():
    experiment = spec_pb2.Experiment()
    assert objectives.geometry(experiment) == {"scale": 35.0, "offset": 0.5}
    experiment.model_config.objective_set.bbox.scale = 20.0
    assert objectives.geometry(experiment) == {"scale": 20.0, "offset": 0.0}


def test_encode_is_distance_to_the_sides_over_the_scale():
    left, top, right, bottom = objectives.encode([[10, 20, 60, 50]], grid_width=4, grid_height=3)
    assert left.shape == right.shape == (1, 4)
    assert top.shape == bottom.shape == (1, 3)
    expected = [(32.5 - 10) / 35, (16.5 - 20) / 35, (60 - 32.5) / 35, (50 - 16.5) / 35]
    np.testing.assert_allclose([left[0, 2], top[0, 1], right[0, 2], bottom[0, 1]], expected)


def test_slopes_of_a_box_under_a_tenth_of_a_cell_are_nvidias():
    # Divided by 0.01 instead of by (1 / 16)^2: 25 / 64 of the slope. Column 12 begins at 192.
    left, top, right, bottom = objectives.encode(
        [(200, 200, 201, 220)], grid_width=60, grid_height=34
    )
    assert left[0, 12] == pytest.approx((0.5 - 8 * 25 / 64) / 35)
    assert right[0, 12] == pytest.approx((1 - 0.5 + 8 * 25 / 64) / 35)
    assert top[0, 12] == pytest.approx((192.5 - 200) / 35)
    assert bottom[0, 12] == pytest.approx((220 - 192.5) / 35)


def test_decode_gives_back_what_encode_was_given_from_every_cell():
    box = [1.1, 21.1, 42.1, 66.666]
    left, top, right, bottom = objectives.encode([box], grid_width=6, grid_height=5)
    sides = np.broadcast_arrays(left[0], top[0][:, None], right[0], bottom[0][:, None])
    boxes = objectives.decode(np.stack(sides)[None], np.ones((1, 1, 5, 6)), width=96, height=80)
    assert boxes.shape == (1, 1, 5, 6, 4)
    np.testing.assert_allclose(boxes, np.broadcast_to(box, boxes.shape), atol=1e-4)


def test_decode_of_ones_reaches_one_scale_to_each_side():
    boxes = objectives.decode(
        np.ones((1, 4, 2, 2)), np.ones((1, 1, 2, 2)), width=32, height=32, clip=False
    )
    np.testing.assert_allclose(boxes[0, 0, 1, 0], [0.5 - 35, 16.5 - 35, 0.5 + 35, 16.5 + 35])


def test_decode_keeps_classes_apart():
    bbox = np.concatenate([np.full((1, 4, 1, 1), 0.1), np.full((1, 4, 1, 1), 0.2)], axis=1)
    boxes = objectives.decode(bbox, np.ones((1, 2, 1, 1)), width=16, height=16, clip=False)
    np.testing.assert_allclose(boxes[0, :, 0, 0, 2], [0.5 + 3.5, 0.5 + 7.0], rtol=1e-6)


def test_decode_clips_to_the_image_and_never_inverts_a_box():
    # A negative extent: the right side lies left of the left side.
    bbox = np.array([-1.0, 1, -2, 3]).reshape(1, 4, 1, 1)
    box = objectives.decode(bbox, np.ones((1, 1, 1, 1)), width=100, height=50)[0, 0, 0, 0]
    np.testing.assert_allclose(box, [35.5, 0, 35.5, 50])


def test_decode_refuses_outputs_of_two_networks():
    with pytest.raises(ValueError, match=r"\(1, 4, 2, 2\).*\(1, 2, 2, 2\)"):
        objectives.decode(np.ones((1, 4, 2, 2)), np.ones((1, 2, 2, 2)), width=32, height=32)
