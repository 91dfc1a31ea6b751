"""Training on smaller images first: sizes by epoch, the batches that follow, what is refused."""

import numpy as np
import pytest
from detectnet_v2 import curriculum, spec_pb2
from detectnet_v2.augmentation import Augmenter
from detectnet_v2.curriculum import Curriculum
from detectnet_v2.dataset import Sample
from detectnet_v2.errors import DetectNetError
from detectnet_v2.loader import BatchMaker
from detectnet_v2.rasterizer import EllipseConfig, rasterize
from detectnet_v2.training_log import Progress

WIDTH, HEIGHT = 192, 128
BOX = [64, 32, 128, 96]


def experiment(scales=((0.5, 0.5), (0.75, 0.75)), epochs=8, mosaic_until=0.0):
    result = spec_pb2.Experiment()
    result.augmentation_config.preprocessing.output_image_width = 480
    result.augmentation_config.preprocessing.output_image_height = 272
    result.training_config.num_epochs = epochs
    result.training_config.learning_rate.soft_start_annealing_schedule.annealing = 0.5
    for until, scale in scales:
        result.native.input_scales.add(until=until, scale=scale)
    result.native.augmentation.mosaic_until = mosaic_until
    return result


def maker(boxes, image, course=None, native=None, **spatial):
    config = spec_pb2.AugmentationConfig()
    config.preprocessing.output_image_width = WIDTH
    config.preprocessing.output_image_height = HEIGHT
    for name, value in spatial.items():
        setattr(config.spatial_augmentation, name, value)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    sample = Sample(None, "0", WIDTH, HEIGHT, boxes, np.zeros(len(boxes), np.int32), 1.0)
    return BatchMaker(
        [sample] * 4,
        [image] * 4,
        augmenter=Augmenter(config, native, canvas=(WIDTH, HEIGHT)),
        ellipses=[EllipseConfig(cov_radius_x=0.7, cov_radius_y=0.7)],
        curriculum=course,
    )


def half():
    return Curriculum((WIDTH, HEIGHT), epochs=2, scales=((0.5, 0.5),))


def picture():
    image = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    image[BOX[1] : BOX[3], BOX[0] : BOX[2]] = 230
    return image


def test_images_grow_with_the_epochs_in_multiples_of_the_stride():
    course = curriculum.from_spec(experiment())
    sizes = [course.input_size(epoch) for epoch in range(8)]
    assert sizes == [(240, 144)] * 4 + [(368, 208)] * 2 + [(480, 272)] * 2
    assert course.work() == pytest.approx([w * h / (480 * 272) for w, h in sizes])
    assert course.describe() == (
        "240 x 144 in epochs 1 to 4, 368 x 208 in epochs 5 to 6, 480 x 272 in epochs 7 to 8"
    )


def test_without_scales_every_epoch_has_full_size_and_mosaics():
    course = curriculum.from_spec(experiment(()))
    assert {course.input_size(epoch) for epoch in range(8)} == {(480, 272)}
    assert all(course.has_mosaics(epoch) for epoch in range(8))
    assert course.work() == [1.0] * 8


def test_mosaics_end_at_their_share():
    course = curriculum.from_spec(experiment(mosaic_until=0.75))
    assert [course.has_mosaics(epoch) for epoch in range(8)] == [True] * 6 + [False] * 2


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (((0.5, 0.5), (0.5, 0.75)), "until 0.5, 0.5: each must be above the one before"),
        (((0.97, 0.5),), "until 0.97 of 8 epochs leaves none of full size"),
    ],
)
def test_scales_that_do_not_lead_to_full_size_are_refused(scales, message):
    with pytest.raises(DetectNetError, match=message):
        curriculum.from_spec(experiment(scales))


def test_scales_do_not_go_with_early_stopping():
    spec = experiment()
    spec.training_config.learning_rate.early_stopping_annealing_schedule.patience_steps = 1
    with pytest.raises(DetectNetError, match="may end before the images have full size"):
        curriculum.from_spec(spec)


def test_a_small_batch_is_the_full_one_scaled_with_its_boxes():
    make = maker([BOX], picture(), half())
    small, full = make.training(0, 0, [0]), make.training(1, 0, [0])
    assert small.images.shape == (1, HEIGHT // 2, WIDTH // 2, 3)
    assert full.images.shape == (1, HEIGHT, WIDTH, 3)
    # Each pixel of half the size is the mean of four.
    means = full.images[0].numpy().reshape(HEIGHT // 2, 2, WIDTH // 2, 2, 3).mean((1, 3))
    np.testing.assert_allclose(small.images[0].numpy(), means, atol=1)
    cov, cov_norm, bbox = rasterize(
        np.array([BOX]) / 2,
        np.array([0]),
        config=[EllipseConfig(cov_radius_x=0.7, cov_radius_y=0.7)],
        grid_width=6,
        grid_height=4,
        num_classes=1,
    )
    np.testing.assert_array_equal(small.targets.cov[0], cov)
    np.testing.assert_array_equal(small.targets.cov_norm[0], cov_norm)
    np.testing.assert_allclose(small.targets.bbox[0], bbox, atol=1e-6)


def test_the_same_is_drawn_at_every_size():
    """Zoom, shift and flip are those of the full size: the bright box lies where it would."""
    options = {"hflip_probability": 0.5, "translate_max_x": 8, "zoom_min": 0.8, "zoom_max": 1.2}
    small = maker([BOX], picture(), half(), **options).training(0, 3, [0])
    full = maker([BOX], picture(), **options).training(0, 3, [0])

    def bright(batch):
        rows, columns = np.nonzero(batch.images[0, :, :, 0].numpy() > 125)
        return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])

    np.testing.assert_allclose(2 * bright(small), bright(full), atol=2)


def test_boxes_below_a_pixel_are_left_out_of_small_images_only():
    make = maker([[64, 32, 65.5, 33.5]], picture(), half())
    assert not make.training(0, 0, [0]).targets.cov.any()
    assert make.training(1, 0, [0]).targets.cov.any()


def test_mosaics_are_made_at_the_small_size_and_end():
    native = spec_pb2.NativeConfig.Augmentation(mosaic_probability=1.0)
    course = Curriculum((WIDTH, HEIGHT), epochs=2, scales=((0.5, 0.5),), mosaic_until=0.5)
    make = maker([[0, 0, WIDTH, HEIGHT]], picture(), course, native)
    mosaic = make.training(0, 0, [0])
    assert mosaic.images.shape == (1, HEIGHT // 2, WIDTH // 2, 3)
    # The picture's bright middle in every quarter.
    assert all(
        (mosaic.images[0, y : y + HEIGHT // 4, x : x + WIDTH // 4] > 200).any()
        for y in (0, HEIGHT // 4)
        for x in (0, WIDTH // 4)
    )
    np.testing.assert_array_equal(make.training(1, 0, [0]).images[0], picture())


def test_the_time_left_counts_what_the_epochs_cost():
    # Two epochs of a quarter of the work, two whole ones.
    progress = Progress(
        first_step=0, total_steps=40, images_per_step=1, work=[0, 0.25, 0.5, 1.5, 2.5]
    )
    assert progress.seconds_left(10, 5.0) == pytest.approx(45.0)
    assert progress.seconds_left(30, 30.0) == pytest.approx(20.0)
    resumed = Progress(
        first_step=20, total_steps=40, images_per_step=1, work=[0, 0.25, 0.5, 1.5, 2.5]
    )
    assert resumed.seconds_left(30, 30.0) == pytest.approx(30.0)
