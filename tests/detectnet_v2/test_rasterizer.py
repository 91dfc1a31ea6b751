import numpy as np
import pytest
from detectnet_v2.rasterizer import EllipseConfig, ellipses, rasterize

GRID = {"grid_width": 60, "grid_height": 34, "stride": 16}


def draw(boxes, classes=None, num_classes=1, config=None, **grid):
    classes = [0] * len(boxes) if classes is None else classes
    return rasterize(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(classes, dtype=np.int32),
        config=config or [EllipseConfig()] * num_classes,
        num_classes=num_classes,
        **(GRID | grid),
    )


@pytest.mark.parametrize(
    ("box", "radius", "coverage", "deadzone_x", "inverse_area", "cells", "total"),
    [
        ((200, 200, 300, 300), 0.4, (1.25, 1.25), 2.0, 0.16, 9, 4.3125),
        ((200, 200, 300, 300), 1.0, (3.125, 3.125), 3.125, 0.0256, 41, 30.5625),
        ((100, 100, 120, 140), 0.4, (1.0, 2.0), 1.0, 0.125, 10, 6.0),
    ],
)
def test_reference_boxes(box, radius, coverage, deadzone_x, inverse_area, cells, total):
    config = [EllipseConfig(cov_radius_x=radius, cov_radius_y=radius)]
    shape = ellipses(np.array([box]), np.array([0]), config)
    assert (shape.coverage_x[0], shape.coverage_y[0]) == pytest.approx(coverage)
    assert shape.deadzone_x[0] == pytest.approx(deadzone_x)
    assert shape.inverse_area[0] == pytest.approx(inverse_area)
    cov, cov_norm, bbox = draw([box], config=config)
    assert np.count_nonzero(cov) == cells
    assert cov.sum() == total
    np.testing.assert_allclose(cov_norm, cov * inverse_area, rtol=1e-6)
    assert np.array_equal(bbox[0] != 0, cov[0] > 0)


def test_the_reference_box_of_one_cell_to_a_pixel():
    config = [EllipseConfig(cov_radius_x=0.6, cov_radius_y=0.6, bbox_min_radius=0.5)]
    shape = ellipses(np.array([(1, 2, 3, 4)]), np.array([0]), config, stride=1)
    assert (shape.coverage_x[0], shape.coverage_y[0]) == pytest.approx((0.6, 0.6))
    assert (shape.center_x[0], shape.center_y[0]) == (2, 3)
    assert shape.inverse_area[0] == pytest.approx(1 / 1.44)


def test_reference_cells():
    cov, _, _ = draw([(200, 200, 300, 300)])
    expected = [[0.0625, 0.5, 0.1875], [0.5, 1, 0.75], [0.1875, 0.75, 0.375]]
    assert cov[0, 14:17, 14:17].tolist() == expected


def test_box_targets_are_not_scaled_by_coverage():
    _, _, bbox = draw([(200, 200, 300, 300)])
    # Row 14, column 14 is covered by a sixteenth only; its reference point is (224.5, 224.5).
    expected = [(224.5 - 200) / 35, (224.5 - 200) / 35, (300 - 224.5) / 35, (300 - 224.5) / 35]
    np.testing.assert_allclose(bbox[:, 14, 14], expected, rtol=1e-6)


def plainly(boxes, classes, config, num_classes, width, height, stride):
    """The algorithm cell by cell and sample by sample, as its description reads."""
    cov = np.zeros((num_classes, height, width))
    norm = np.zeros_like(cov)
    bbox = np.zeros((num_classes, 4, height, width))
    for i in np.argsort([b[3] for b in boxes], kind="stable"):
        c = config[classes[i]]
        x1, y1, x2, y2 = (v / stride for v in boxes[i])
        cx, cy = x1 + c.cov_center_x * (x2 - x1), y1 + c.cov_center_y * (y2 - y1)
        sx = cx - x1 if c.cov_center_x < 0.5 else x2 - cx
        sy = cy - y1 if c.cov_center_y < 0.5 else y2 - cy
        csx, csy = max(c.cov_radius_x * sx, 0.1), max(c.cov_radius_y * sy, 0.1)
        r = c.bbox_min_radius
        if csx < r:
            csx, csy = r, csy * r / csx
        if csy < r:
            csx, csy = csx * r / csy, r
        dsx = max((1 - c.deadzone_radius) * csx + c.deadzone_radius * sx, csx)
        dsy = max((1 - c.deadzone_radius) * csy + c.deadzone_radius * sy, csy)
        for y in range(height):
            for x in range(width):
                inside = dead = 0
                for sample in range(16):
                    px = x + 0.125 + 0.25 * (sample % 4) - cx
                    py = y + 0.125 + 0.25 * (sample // 4) - cy
                    inside += (px / csx) ** 2 + (py / csy) ** 2 < 1
                    dead += (px / dsx) ** 2 + (py / dsy) ** 2 < 1
                k = classes[i]
                if dead and dead / 16 >= cov[k, y, x]:
                    cov[k, y, x] = norm[k, y, x] = 0
                    bbox[k, :, y, x] = 0
                if inside and inside / 16 >= cov[k, y, x]:
                    cov[k, y, x] = inside / 16
                    norm[k, y, x] = inside / 16 / max(4 * csx * csy, 1)
                    b = boxes[i]
                    wide, high = x2 - x1, y2 - y1
                    left = 0.5 + (stride * x - b[0]) * wide**2 / max(wide**2, 0.01)
                    top = 0.5 + (stride * y - b[1]) * high**2 / max(high**2, 0.01)
                    sides = left, top, b[2] - b[0] - left, b[3] - b[1] - top
                    bbox[k, :, y, x] = np.array(sides) / 35
    return cov, norm, bbox.reshape(-1, height, width)


@pytest.mark.parametrize("seed", range(6))
def test_crowded_scenes_match_the_plain_algorithm(seed):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-30, 170, (12, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(2, 90, (12, 2))], axis=1)
    boxes = boxes.astype(np.float32).astype(np.float64)
    classes = rng.integers(0, 2, 12)
    config = [
        EllipseConfig(0.5, 0.5, 0.4, 0.4, 1.0, 0.4),
        EllipseConfig(0.3, 0.6, 0.8, 0.5, 0.5, 0.67),
    ]
    drawn = draw(boxes, classes, 2, config, grid_width=11, grid_height=9)
    expected = plainly(boxes, classes, config, 2, 11, 9, 16)
    for got, wanted in zip(drawn, expected, strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_the_lower_box_erases_the_upper_one_in_its_dead_zone():
    upper, lower = (100, 100, 260, 260), (130, 150, 290, 310)
    alone, _, _ = draw([upper])
    together, _, bbox = draw([upper, lower])
    again, _, _ = draw([lower, upper])
    assert together.sum() < alone.sum() + draw([lower])[0].sum()
    assert np.array_equal(together, again)
    row, column = 14, 13
    assert bbox[3, row, column] == pytest.approx((310 - (16 * row + 0.5)) / 35)


def test_classes_do_not_interact():
    box = (100, 100, 260, 260)
    cov, _, _ = draw([box, box], [0, 1], 2)
    assert np.array_equal(cov[0], cov[1])
    assert np.array_equal(cov[0], draw([box])[0][0])


def test_nothing_is_drawn_for_no_box_or_a_box_outside():
    for boxes in ([], [(-500, -500, -400, -400)], [(2000, 2000, 2100, 2100)]):
        cov, cov_norm, bbox = draw(boxes)
        assert cov.shape == cov_norm.shape == (1, 34, 60)
        assert bbox.shape == (4, 34, 60)
        assert not cov.any()
        assert not bbox.any()
