import numpy as np
import pytest
from detectnet_v2 import augmentation, spec_pb2
from detectnet_v2.augmentation import Augmenter, Drawn, transform_boxes
from detectnet_v2.errors import DetectNetError

WIDTH, HEIGHT = 64, 32


def config(**groups):
    result = spec_pb2.AugmentationConfig()
    result.preprocessing.output_image_width = WIDTH
    result.preprocessing.output_image_height = HEIGHT
    for group, values in groups.items():
        for name, value in values.items():
            setattr(getattr(result, group), name, value)
    return result


def draws(count=4000, native=None, **groups):
    augmenter = Augmenter(config(**groups), native, canvas=(WIDTH, HEIGHT))
    return [augmenter.draw(np.random.default_rng((1, i))) for i in range(count)]


def colors(drawn, pixel):
    return np.array([[*pixel, 1] @ d.color for d in drawn])


def sampled(image, spatial, width, height):
    """The warp, pixel by pixel."""
    result = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            qx, qy, _ = np.array([x + 0.5, y + 0.5, 1]) @ spatial - [0.5, 0.5, 0]
            x0, y0 = int(np.floor(qx)), int(np.floor(qy))
            value = np.zeros(3)
            for ty, wy in ((y0, 1 - (qy - y0)), (y0 + 1, qy - y0)):
                for tx, wx in ((x0, 1 - (qx - x0)), (x0 + 1, qx - x0)):
                    inside = 0 <= ty < image.shape[0] and 0 <= tx < image.shape[1]
                    value += wy * wx * (image[ty, tx] if inside else 127.5)
            result[y, x] = value
    return result


def test_warp_is_bilinear_at_pixel_centres_with_grey_outside():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    image.setflags(write=False)
    augmenter = Augmenter(config(), canvas=(WIDTH, HEIGHT))
    spatial = (
        augmentation.rotation(20, WIDTH, HEIGHT)
        @ augmentation.zoom(1.3, 5.5, -3.25)
        @ augmentation.horizontal_flip(WIDTH)
    )
    warped = augmenter.warp(image, Drawn(spatial, np.eye(4)[:, :3]))
    np.testing.assert_allclose(warped, sampled(image, spatial, WIDTH, HEIGHT), atol=1.1)


def test_a_flip_mirrors_pixels_and_boxes_exactly():
    image = np.arange(HEIGHT * WIDTH * 3, dtype=np.uint32).astype(np.uint8)
    image = image.reshape(HEIGHT, WIDTH, 3)
    augmenter = Augmenter(config(), canvas=(WIDTH, HEIGHT))
    flip = augmentation.horizontal_flip(WIDTH)
    assert np.array_equal(augmenter.warp(image, Drawn(flip, np.eye(4)[:, :3])), image[:, ::-1])
    np.testing.assert_allclose(transform_boxes([[4, 5, 20, 30]], flip), [[44, 5, 60, 30]])


def test_unchanged_pads_with_black_and_crops_the_upper_left():
    small = np.full((20, 40, 3), 200, dtype=np.uint8)
    augmenter = Augmenter(config(), canvas=(100, 50))
    result = augmenter.warp(small, augmenter.unchanged())
    assert result.shape == (HEIGHT, WIDTH, 3)
    assert (result[:20, :40] == 200).all()
    assert not result[20:].any()
    assert not result[:, 40:].any()
    large = np.arange(100, dtype=np.uint8)[None, :, None] * np.ones((50, 1, 3), dtype=np.uint8)
    assert np.array_equal(augmenter.warp(large, augmenter.unchanged()), large[:HEIGHT, :WIDTH])


def test_a_shrunken_crop_shows_the_canvas_before_the_grey():
    image = np.full((HEIGHT, 80, 3), 250, dtype=np.uint8)
    augmenter = Augmenter(config(), canvas=(80, HEIGHT))
    half = augmentation.zoom(2, 0, 0)
    result = augmenter.warp(image, Drawn(half, np.eye(4)[:, :3]))
    assert (result[:15, :39] == 250).all()
    assert (result[20:, :] == 128).all()
    assert (result[:, 45:] == 128).all()


def test_crop_and_scale_of_the_preprocessing():
    crop = {"crop_left": 10, "crop_top": 4, "crop_right": 74, "crop_bottom": 36}
    augmenter = Augmenter(config(preprocessing=crop), canvas=(100, 50))
    boxes = transform_boxes([[20, 14, 30, 24]], augmenter.unchanged().spatial)
    np.testing.assert_allclose(boxes, [[10, 10, 20, 20]])
    scale = {"scale_width": 0.5, "scale_height": 2}
    # A factor, so the canvas does not matter.
    for canvas in ((100, 50), (WIDTH, HEIGHT)):
        augmenter = Augmenter(config(preprocessing=scale), canvas=canvas)
        boxes = transform_boxes([[20, 14, 30, 24]], augmenter.unchanged().spatial)
        np.testing.assert_allclose(boxes, [[10, 28, 15, 48]])
    augmenter = Augmenter(config(preprocessing={"scale_height": 2} | crop), canvas=(100, 50))
    boxes = transform_boxes([[20, 14, 30, 24]], augmenter.unchanged().spatial)
    np.testing.assert_allclose(boxes, [[10, 24, 20, 44]])


def test_zoom_places_the_content_anywhere_it_fits():
    drawn = draws(spatial_augmentation={"zoom_min": 0.5, "zoom_max": 2.0})
    ratios = np.array([d.spatial[0, 0] for d in drawn])
    assert ratios.min() == pytest.approx(0.5, abs=0.01)
    assert ratios.max() == pytest.approx(2.0, abs=0.01)
    assert ratios.mean() == pytest.approx(1.25, abs=0.03)
    corners = transform_boxes([[0, 0, WIDTH, HEIGHT]], drawn[0].spatial)
    corners = np.array([transform_boxes([[0, 0, WIDTH, HEIGHT]], d.spatial)[0] for d in drawn])
    shrunk = ratios > 1
    assert (corners[shrunk, :2] >= -1e-4).all()
    assert (corners[shrunk, 2:] <= [WIDTH + 1e-4, HEIGHT + 1e-4]).all()
    assert (corners[~shrunk, :2] <= 1e-4).all()
    assert (corners[~shrunk, 2:] >= [WIDTH - 1e-4, HEIGHT - 1e-4]).all()
    free = corners[shrunk, 0] / (WIDTH - WIDTH / ratios[shrunk])
    assert free.mean() == pytest.approx(0.5, abs=0.03)


def test_translation_is_whole_pixels_both_ends_included():
    drawn = draws(spatial_augmentation={"translate_max_x": 2.9, "translate_max_y": 1})
    x = [d.spatial[2, 0] for d in drawn]
    y = [d.spatial[2, 1] for d in drawn]
    assert set(x) == {-2, -1, 0, 1, 2}
    assert set(y) == {-1, 0, 1}
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(0, abs=0.05)


def test_flip_probability_and_no_vertical_flip():
    drawn = draws(spatial_augmentation={"hflip_probability": 0.25, "vflip_probability": 1.0})
    flipped = [d.spatial[0, 0] < 0 for d in drawn]
    assert np.mean(flipped) == pytest.approx(0.25, abs=0.03)
    assert all(d.spatial[1, 1] == 1 for d in drawn)


def test_rotation_is_in_degrees_about_the_centre():
    drawn = draws(spatial_augmentation={"rotate_rad_max": 30})
    angles = np.degrees([np.arctan2(d.spatial[0, 1], d.spatial[0, 0]) for d in drawn])
    assert np.abs(angles).max() <= 30
    assert np.abs(angles).max() > 29
    centre = [WIDTH / 2, HEIGHT / 2, 1]
    for d in drawn[:10]:
        np.testing.assert_allclose(centre @ d.spatial, centre, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 1.0),
        ({"rotate_probability": 0.0}, 1.0),
        ({"rotate_probability": 1.0}, 1.0),
        ({"rotate_probability": 0.25}, 0.25),
    ],
)
def test_rotation_is_as_frequent_as_asked_and_always_there_when_not_asked(settings, share):
    drawn = draws(spatial_augmentation={"rotate_rad_max": 30} | settings)
    rotated = np.mean([d.spatial[0, 1] != 0 for d in drawn])
    assert rotated == pytest.approx(share, abs=0.03 if share < 1 else 0)


def test_later_operations_act_on_the_output_side():
    drawn = draws(
        1, spatial_augmentation={"hflip_probability": 1.0, "zoom_min": 2.0, "zoom_max": 2.0}
    )[0]
    # The flip happens first, in the full frame; then the frame shrinks towards its place.
    zoomed = drawn.spatial @ np.linalg.inv(augmentation.horizontal_flip(WIDTH))
    assert zoomed[0, 0] == zoomed[1, 1] == pytest.approx(2.0)


def test_brightness_is_a_truncated_normal_on_all_channels():
    drawn = draws(color_augmentation={"color_shift_stddev": 0.1})
    shifts = colors(drawn, (0.2, 0.4, 0.6)) - [0.2, 0.4, 0.6]
    np.testing.assert_allclose(shifts, shifts[:, :1].repeat(3, axis=1), atol=1e-3)
    assert np.abs(shifts).max() <= 0.2 + 1e-3
    # A normal cut at two deviations keeps 0.8796 of its deviation.
    assert shifts[:, 0].std() == pytest.approx(0.08796, rel=0.04)


def test_contrast_turns_about_its_centre():
    drawn = draws(color_augmentation={"contrast_scale_max": 0.4, "contrast_center": 0.5})
    middle = colors(drawn, (0.5, 0.5, 0.5))
    np.testing.assert_allclose(middle, 0.5, atol=1e-3)
    factor = (colors(drawn, (0.8, 0.8, 0.8))[:, 0] - 0.5) / 0.3
    assert 0.6 <= factor.min() < 0.63
    assert 1.37 < factor.max() <= 1.4 + 1e-3


def test_saturation_is_uniform_and_keeps_grey():
    drawn = draws(color_augmentation={"saturation_shift_max": 0.5})
    np.testing.assert_allclose(colors(drawn, (0.3, 0.3, 0.3)), 0.3, atol=2e-3)
    red = colors(drawn, (1, 0, 0))
    amount = (red[:, 0] - 0.299) / 0.701
    assert amount.min() == pytest.approx(0.5, abs=0.02)
    assert amount.max() == pytest.approx(1.5, abs=0.02)
    assert amount.mean() == pytest.approx(1.0, abs=0.02)


def test_hue_is_a_truncated_normal_in_degrees():
    drawn = draws(color_augmentation={"hue_rotation_max": 40})
    # Of red: 0.299 + cos(h) (0.701, -0.299, -0.299) + sin(h) (0.168, -0.328, 1.25).
    turns = np.array([[0.701, -0.299, -0.299], [0.168, -0.328, 1.25]])
    cosine, sine = np.linalg.lstsq(turns.T, (colors(drawn, (1, 0, 0)) - 0.299).T)[0]
    degrees = np.degrees(np.arctan2(sine, cosine))
    assert np.abs(degrees).max() <= 40 + 1e-3
    # Half the maximum is the deviation, of which a normal cut at two deviations keeps 0.8796.
    assert degrees.std() == pytest.approx(20 * 0.8796, rel=0.04)
    assert degrees.mean() == pytest.approx(0, abs=1)


def test_hue_matrix_reference_values():
    matrix = augmentation.hue_saturation(0, 1)[:3, :3]
    np.testing.assert_allclose(matrix, np.eye(3), atol=2e-3)
    turned = augmentation.hue_saturation(90, 1)[:3, :3]
    np.testing.assert_allclose(turned[0], [0.299 + 0.168, 0.299 - 0.328, 0.299 + 1.25], atol=1e-9)
    grey = augmentation.hue_saturation(0, 0)[:3, :3]
    np.testing.assert_allclose(grey[:, 0], [0.299, 0.587, 0.114])


def test_colours_apply_contrast_then_hue_then_brightness():
    settings = {
        "color_shift_stddev": 0.1,
        "hue_rotation_max": 25,
        "saturation_shift_max": 0.2,
        "contrast_scale_max": 0.3,
        "contrast_center": 0.5,
    }
    drawn = draws(1, color_augmentation=settings)[0]
    pixel = np.array([0.9, 0.2, 0.4])
    # Draws follow each other in a fixed order: flip, translation and scale before the colours.
    rng = np.random.default_rng((1, 0))
    rng.random()
    rng.integers(0, 0, endpoint=True)
    rng.integers(0, 0, endpoint=True)
    rng.random()
    shift = augmentation.truncated_normal(rng, 0.1)
    hue = augmentation.truncated_normal(rng, 12.5)
    saturation = 1 + rng.uniform(-np.float32(0.2), np.float32(0.2))
    change = augmentation.truncated_normal(rng, np.float32(0.3) / 2)
    stepwise = pixel * (1 + change) - change * 0.5
    stepwise = stepwise @ augmentation.hue_saturation(hue, saturation)[:3, :3]
    np.testing.assert_allclose([*pixel, 1] @ drawn.color, stepwise + shift, atol=1e-6)


def test_recolor_clips_and_matches_the_matrix():
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    augmenter = Augmenter(config(), canvas=(WIDTH, HEIGHT))
    matrix = (augmentation.contrast(0.4, 0.5) @ augmentation.brightness(0.2))[:, :3]
    expected = np.concatenate([image / 255, np.ones((HEIGHT, WIDTH, 1))], axis=2) @ matrix
    expected = np.clip(expected, 0, 1) * 255
    augmenter.recolor(image, Drawn(np.eye(3), matrix), rng)
    np.testing.assert_allclose(image, expected, atol=0.51)


def test_native_options_are_off_by_default_and_bounded():
    plain = draws(50)
    assert all(d.blur == d.noise == 0 for d in plain)
    native = spec_pb2.NativeConfig.Augmentation(
        scale_min=0.5,
        scale_max=2.0,
        scale_probability=0.5,
        blur_probability=0.5,
        blur_sigma_max=2,
        noise_stddev_max=0.1,
        grayscale_probability=0.25,
    )
    drawn = draws(native=native)
    scales = np.array([1 / d.spatial[0, 0] for d in drawn])
    assert np.mean(scales == 1) == pytest.approx(0.5, abs=0.03)
    logs = np.log2(scales[scales != 1])
    assert -1 <= logs.min() < -0.98
    assert logs.mean() == pytest.approx(0, abs=0.05)
    assert np.mean([d.blur == 0 for d in drawn]) == pytest.approx(0.5, abs=0.03)
    assert 0.09 < max(d.noise for d in drawn) <= 0.1
    grey = [np.ptp(color) < 1e-9 for color in colors(drawn, (0.9, 0.1, 0.5))]
    assert np.mean(grey) == pytest.approx(0.25, abs=0.03)


def test_impossible_ranges_are_refused():
    with pytest.raises(DetectNetError, match=r"zoom_min 1\.5 and zoom_max 1:"):
        draws(1, spatial_augmentation={"zoom_min": 1.5, "zoom_max": 1.0})
    native = spec_pb2.NativeConfig.Augmentation(scale_probability=0.5, scale_max=2)
    with pytest.raises(DetectNetError, match="scale_min 0 and scale_max 2:"):
        draws(1, native=native)


def test_boxes_stay_upright_and_unclipped():
    shifted = transform_boxes([[0, 0, 10, 10]], augmentation.translation(15, 3))
    np.testing.assert_allclose(shifted, [[-15, -3, -5, 7]])
    turned = transform_boxes([[10, 10, 20, 14]], augmentation.rotation(180, WIDTH, HEIGHT))
    np.testing.assert_allclose(turned, [[44, 18, 54, 22]], atol=1e-5)
    assert transform_boxes(np.empty((0, 4)), np.eye(3)).shape == (0, 4)
