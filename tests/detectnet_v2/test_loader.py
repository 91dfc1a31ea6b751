import threading
import time
from pathlib import Path

import numpy as np
import pytest
from detectnet_v2 import loader, spec_pb2
from detectnet_v2.augmentation import Augmenter
from detectnet_v2.dataset import Sample
from detectnet_v2.errors import DetectNetError
from detectnet_v2.loader import BatchMaker, Prefetcher, TrainingOrder
from detectnet_v2.rasterizer import EllipseConfig, rasterize

WIDTH, HEIGHT = 96, 64


def sample(i, boxes, classes, weight=1.0, size=(WIDTH, HEIGHT), source=0):
    return Sample(
        Path(f"{i}.png"),
        str(i),
        *size,
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(classes, dtype=np.int32),
        weight,
        source,
    )


@pytest.fixture
def samples():
    return [
        sample(0, [[8, 8, 40, 48]], [0]),
        sample(1, [[50, 10, 90, 60], [4, 4, 30, 30]], [1, 0], weight=2.5),
        sample(2, [], []),
        sample(3, [[30, 20, 60, 50]], [1]),
    ]


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(4)]


def maker(samples, images, native=None, **options):
    config = spec_pb2.AugmentationConfig()
    config.preprocessing.output_image_width = WIDTH
    config.preprocessing.output_image_height = HEIGHT
    config.spatial_augmentation.hflip_probability = 0.5
    config.spatial_augmentation.zoom_min = 0.8
    config.spatial_augmentation.zoom_max = 1.2
    config.color_augmentation.color_shift_stddev = 0.05
    return BatchMaker(
        samples,
        images,
        augmenter=Augmenter(config, native, canvas=(WIDTH, HEIGHT)),
        ellipses=[EllipseConfig()] * 2,
        **options,
    )


@pytest.mark.parametrize(
    ("count", "batch", "processes", "steps"),
    [(100, 10, 1, 10), (101, 10, 1, 11), (101, 10, 2, 6), (7, 3, 4, 1)],
)
def test_steps_cover_the_set(count, batch, processes, steps):
    assert loader.steps_per_epoch(count, batch, processes) == steps


def test_an_epoch_sees_every_sample_and_fills_up_with_others():
    order = loader.epoch_order(1, 0, 10, 12)
    assert sorted(order[:10]) == list(range(10))
    assert len(order) == 12
    assert not np.array_equal(order, loader.epoch_order(1, 1, 10, 12))
    assert not np.array_equal(order, loader.epoch_order(2, 0, 10, 12))
    assert np.array_equal(order, loader.epoch_order(1, 0, 10, 12))


def test_processes_share_an_epoch_without_overlap():
    orders = [TrainingOrder(12, 3, seed=5, rank=rank, processes=2) for rank in range(2)]
    taken = [[tuple(batch) for _, _, batch in order.batches(0, 2)] for order in orders]
    assert sorted(i for batches in taken for batch in batches for i in batch) == list(range(12))
    alone = TrainingOrder(12, 6, seed=5)
    together = [sorted(taken[0][step] + taken[1][step]) for step in range(2)]
    assert together == [sorted(batch) for _, _, batch in alone.batches(0, 2)]


def test_the_order_can_be_entered_anywhere():
    order = TrainingOrder(10, 4, seed=3)
    whole = list(order.batches(0, 9))
    part = list(order.batches(4, 9))
    for (epoch, first, batch), (epoch_, first_, batch_) in zip(whole[4:], part, strict=True):
        assert (epoch, first) == (epoch_, first_)
        assert np.array_equal(batch, batch_)


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(DetectNetError, match=r"batch_size_per_gpu is 16.*only 10 training images"):
        TrainingOrder(10, 16, seed=0)


def test_validation_batches_are_plain(samples, images):
    batch = maker(samples, images).validation([1, 2])
    assert batch.indices == (1, 2)
    assert np.array_equal(batch.images[0], images[1])
    assert batch.images.shape == (2, HEIGHT, WIDTH, 3)
    cov, cov_norm, bbox = rasterize(
        samples[1].boxes,
        samples[1].classes,
        config=[EllipseConfig()] * 2,
        grid_width=6,
        grid_height=4,
        stride=16,
        num_classes=2,
    )
    assert np.array_equal(batch.targets.cov[0], cov)
    assert np.array_equal(batch.targets.cov_norm[0], cov_norm)
    assert np.array_equal(batch.targets.bbox[0], bbox)
    assert not batch.targets.cov[1].any()
    assert batch.targets.weight.tolist() == [2.5, 1.0]


def test_training_batches_depend_on_seed_epoch_and_position_only(samples, images):
    first = maker(samples, images, seed=1).training(3, 8, [0, 1])
    again = maker(samples, images, seed=1)
    again.training(0, 0, [2, 3])
    repeated = again.training(3, 8, [0, 1])
    assert np.array_equal(first.images, repeated.images)
    assert np.array_equal(first.targets.bbox, repeated.targets.bbox)
    alone = again.training(3, 9, [1])
    assert np.array_equal(first.images[1], alone.images[0])
    for other in (
        maker(samples, images, seed=2).training(3, 8, [0, 1]),
        again.training(4, 8, [0, 1]),
        again.training(3, 10, [0, 1]),
    ):
        assert not np.array_equal(first.images, other.images)


def decoded(batch, label):
    """The box x1 y1 x2 y2 of one image's targets where they are surest; None without a target."""
    cov = batch.targets.cov[0, label].numpy()
    if not cov.any():
        return None
    row, column = np.unravel_index(cov.argmax(), cov.shape)
    left, top, right, bottom = (
        batch.targets.bbox[0, 4 * label : 4 * label + 4, row, column].numpy() * 35
    )
    gx, gy = 16 * column + 0.5, 16 * row + 0.5
    return [
        max(gx - left, 0),
        max(gy - top, 0),
        min(gx + right, WIDTH),
        min(gy + bottom, HEIGHT),
    ]


def extent(shown):
    rows, columns = np.nonzero(shown)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_targets_follow_the_augmented_image(samples):
    """A bright box must end up where the targets say it is."""
    images = []
    for one in samples:
        image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        for x1, y1, x2, y2 in one.boxes.astype(int):
            image[y1:y2, x1:x2] = 255
        images.append(image)
    make = maker(samples, images)
    for position in range(20):
        batch = make.training(0, position, [3])
        found = extent(batch.images[0, :, :, 0].numpy() > 190)
        np.testing.assert_allclose(found, decoded(batch, 1), atol=1.5)


def test_a_mosaic_holds_four_images_and_their_visible_boxes():
    """Red tells the image, green and blue its two objects, and each object has its own class."""
    count, boxes = 10, [[12, 10, 44, 42], [46, 30, 94, 62]]
    samples, images = [], []
    for i in range(count):
        image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        image[:, :, 0] = 20 * (i + 1)
        for channel, (x1, y1, x2, y2) in enumerate(boxes, start=1):
            image[y1:y2, x1:x2, channel] = 255
        images.append(image)
        samples.append(sample(i, boxes, [2 * i, 2 * i + 1]))
    config = spec_pb2.AugmentationConfig()
    config.preprocessing.output_image_width = WIDTH
    config.preprocessing.output_image_height = HEIGHT
    config.spatial_augmentation.hflip_probability = 0.5
    native = spec_pb2.NativeConfig.Augmentation(mosaic_probability=1.0)
    make = BatchMaker(
        samples,
        images,
        augmenter=Augmenter(config, native, canvas=(WIDTH, HEIGHT)),
        ellipses=[EllipseConfig()] * (2 * count),
    )
    kept, dropped = 0, 0
    for position in range(60):
        batch = make.training(0, position, [0])
        pixels = batch.images[0].numpy()
        shown = [i for i in range(count) if (pixels[:, :, 0] == 20 * (i + 1)).any()]
        assert 0 in shown
        labels = {label // 2 for label in batch.targets.cov[0].numpy().any((1, 2)).nonzero()[0]}
        assert labels <= set(shown)
        if len(shown) < 4:
            # An image that is there twice does not tell where its quarters end.
            continue
        for i in shown:
            quarter = pixels[:, :, 0] == 20 * (i + 1)
            x1, y1, x2, y2 = extent(quarter)
            assert quarter.sum() == (x2 - x1) * (y2 - y1)
            cover = max((x2 - x1) / WIDTH, (y2 - y1) / HEIGHT)
            for number, box in enumerate(boxes):
                visible = quarter & (pixels[:, :, number + 1] > 127)
                share = visible.sum() / (cover**2 * (box[2] - box[0]) * (box[3] - box[1]))
                target = decoded(batch, 2 * i + number)
                if abs(share - loader._MOSAIC_MIN_VISIBLE) < 0.05:
                    continue
                if share < loader._MOSAIC_MIN_VISIBLE:
                    dropped += 1
                    assert target is None
                else:
                    kept += 1
                    np.testing.assert_allclose(extent(visible), target, atol=1.5)
    assert kept > 50
    assert dropped > 10
    repeated = make.training(0, 59, [0])
    assert np.array_equal(repeated.images, batch.images)


def test_labels_of_stretched_images_are_stretched(images):
    stretched = sample(0, [[16, 16, 80, 96]], [0], size=(2 * WIDTH, 4 * HEIGHT))
    batch = maker([stretched], images, stretched=True).validation([0])
    plain = maker([sample(0, [[8, 4, 40, 24]], [0])], images).validation([0])
    assert np.array_equal(batch.targets.bbox, plain.targets.bbox)


def test_prefetcher_keeps_the_order_whatever_finishes_first():
    def make(i):
        time.sleep(0.02 if i % 2 == 0 else 0)
        return i

    with Prefetcher(make, ((i,) for i in range(12)), workers=3) as results:
        assert list(results) == list(range(12))


def test_prefetcher_works_ahead_but_not_without_limit():
    started = []
    with Prefetcher(started.append, ((i,) for i in range(100)), workers=1, ahead=2) as results:
        next(results)
        deadline = time.monotonic() + 5
        while len(started) < 4 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert len(started) == 4


def test_prefetcher_passes_errors_on_and_stops_its_threads():
    def fail(i):
        raise DetectNetError(f"image {i}")

    before = threading.active_count()
    with (
        pytest.raises(DetectNetError, match="image 0"),
        Prefetcher(fail, ((i,) for i in range(9)), workers=2) as results,
    ):
        next(results)
    assert threading.active_count() == before


def test_weighted_samples_come_in_proportion_and_none_is_lost():
    weights = np.array([1.0, 1.0, 2.0, 0.5])
    order = loader.epoch_order(3, 0, 4, 18, weights)
    counts = np.bincount(order, minlength=4)
    np.testing.assert_array_less(np.abs(counts - 18 * weights / weights.sum()), 1)
    assert not np.array_equal(order, np.sort(order))
    assert np.array_equal(order, loader.epoch_order(3, 0, 4, 18, weights))
    assert not np.array_equal(order, loader.epoch_order(3, 1, 4, 18, weights))
    first = next(TrainingOrder(4, 4, seed=3, weights=weights).batches(0, 1))[2]
    assert np.array_equal(first, loader.epoch_order(3, 0, 4, 4, weights))


def test_uniform_sampling_shows_a_small_source_as_often_as_a_large_one():
    samples = [sample(i, [[8, 8, 40, 48]], [0], source=int(i > 5)) for i in range(8)]
    experiment = spec_pb2.Experiment()
    experiment.cost_function_config.target_classes.add(name="mask")
    assert loader.sampling_weights(samples, experiment) is None
    experiment.dataset_config.sampling_mode = spec_pb2.DatasetConfig.UNIFORM
    assert loader.sampling_weights(samples[:6], experiment) is None
    weights = loader.sampling_weights(samples, experiment)
    assert weights.tolist() == pytest.approx([1 / 6] * 6 + [1 / 2] * 2)
    seen = loader.epoch_order(0, 0, 8, 12, weights)
    assert np.count_nonzero(seen > 5) == 6


def test_uniform_sampling_keeps_the_balance_of_classes_within_a_source():
    samples = [sample(i, [[8, 8, 40, 48]], [int(i == 0)], source=i % 2) for i in range(4)]
    experiment = spec_pb2.Experiment()
    for name in ("mask", "no-mask"):
        experiment.cost_function_config.target_classes.add(name=name)
    experiment.native.class_balance = 1.0
    experiment.dataset_config.sampling_mode = spec_pb2.DatasetConfig.UNIFORM
    weights = loader.sampling_weights(samples, experiment)
    # Three images show the one class and one the other.
    assert weights.tolist() == pytest.approx([3 / 4, 1 / 2, 1 / 4, 1 / 2])


def test_rare_classes_weigh_more():
    shown = [[0], [0], [0, 0], [0], [1], [0, 1], [], []]
    samples = [sample(i, [[8, 8, 40, 48]] * len(c), c) for i, c in enumerate(shown)]
    # Class 0 is on five images, class 1 on two.
    rare = 5 / 2
    assert loader.balancing_weights(samples, 2, 0.0) is None
    expected = [1, 1, 1, 1, rare, rare, 1, 1]
    assert loader.balancing_weights(samples, 2, 1.0).tolist() == pytest.approx(expected)
    root = loader.balancing_weights(samples, 2, 0.5)
    assert root[4] == pytest.approx(rare**0.5)
