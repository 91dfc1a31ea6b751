"""Histograms of activations: exact counts in any order, and the ranges chosen from them."""

import numpy as np
import pytest
from detectnet_v2.histogram import BINS, ActivationHistogram, entropy_range


def filled(*arrays):
    histogram = ActivationHistogram()
    for values in arrays:
        histogram.add(np.asarray(values, np.float32))
    return histogram


@pytest.fixture
def arrays():
    rng = np.random.default_rng(2)
    return [
        (rng.standard_normal((3, 50, 70)) * scale).astype(np.float32) for scale in (0.1, 7, 0.5)
    ]


def test_counts_are_those_of_the_final_range(arrays):
    histogram = filled(*arrays)
    values = np.abs(np.concatenate([array.ravel() for array in arrays]))
    top = 2.0 ** np.ceil(np.log2(values.max()))
    expected, _ = np.histogram(values.astype(np.float64), BINS, (0, top))
    assert histogram.width == top / BINS
    assert histogram.maximum == values.max()
    np.testing.assert_array_equal(histogram.counts, expected)


def test_order_and_merging_do_not_matter(arrays):
    forwards, backwards = filled(*arrays), filled(*arrays[::-1])
    small, large = filled(arrays[0]), filled(arrays[1], arrays[2])
    small.merge(large)
    empty = filled()
    empty.merge(filled(*arrays))
    for other in (backwards, small, empty):
        np.testing.assert_array_equal(other.counts, forwards.counts)
        assert other.maximum == forwards.maximum
        assert other.width == forwards.width


def test_large_arrays_are_counted_whole():
    values = np.full(1_000_003, 0.75, np.float32)
    values[::2] = -0.75
    histogram = filled(values)
    assert histogram.counts.sum() == histogram.counts[3 * BINS // 4] == 1_000_003


def test_power_of_two_is_inside_the_range():
    histogram = filled([1.0])
    assert histogram.width * BINS == 2
    assert histogram.counts[BINS // 2] == 1
    assert histogram.clipped(1.0) == 0


def test_zeros_are_left_out():
    histogram = filled([0, 0, 0, 1e-9, 1.5], np.zeros(10))
    assert histogram.counts.sum() == 2
    assert histogram.counts[0] == 1


def test_all_zero_activation_gets_some_positive_range():
    for histogram in (filled(), filled(np.zeros(100)), filled(np.zeros(0))):
        assert {histogram.amax(method) for method in ("entropy", "max", "percentile")} == {1.0}
        assert histogram.clipped(1.0) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="infinite or NaN"):
        filled([1.0, value, 2.0])


def divergence(counts, kept, levels):
    """Kullback-Leibler divergence for one number of bins, written out step by step."""
    p = counts[:kept].astype(float)
    q = np.zeros(kept)
    for level in range(levels):
        group = slice(kept * level // levels, kept * (level + 1) // levels)
        occupied = counts[group] > 0
        if occupied.any():
            q[group][occupied] = counts[group].sum() / occupied.sum()
    p[-1] += counts[kept:].sum()
    p, q = p / p.sum(), q / q.sum()
    if ((q == 0) & (p > 0)).any():
        return np.inf
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("seed", range(6))
def test_entropy_range_is_the_minimum_over_all_ranges(seed):
    rng = np.random.default_rng(seed)
    levels, bins = 16, 200
    counts = rng.poisson(2000 * np.exp(-np.arange(bins) / rng.uniform(5, 60)))
    counts[rng.random(bins) < 0.1] = 0
    counts[bins - 1] = rng.integers(1, 5)
    divergences = {kept: divergence(counts, kept, levels) for kept in range(levels, bins + 1)}
    chosen = entropy_range(counts, levels)
    assert divergences[chosen] == pytest.approx(min(divergences.values()), abs=1e-12)


def test_entropy_range_clips_a_lone_outlier_and_keeps_a_flat_distribution():
    peaked = np.floor(100_000 * np.exp(-np.arange(BINS) / 40)).astype(int)
    peaked[4000] = 1
    assert entropy_range(peaked) < 1000
    flat = np.full(BINS, 50)
    assert entropy_range(flat) == BINS


def test_few_bins_are_all_kept():
    counts = np.zeros(BINS, int)
    counts[[0, 100]] = 5
    assert entropy_range(counts) == 101


def test_ranges_by_method():
    rng = np.random.default_rng(4)
    values = np.append(rng.standard_normal(100_000), [40.0]).astype(np.float32)
    histogram = filled(values)
    assert histogram.amax("max") == 40
    assert histogram.amax("percentile", percentile=99) == pytest.approx(2.576, rel=0.02)
    entropy = histogram.amax("entropy")
    assert 2 < entropy < 8
    assert histogram.clipped(entropy) == pytest.approx(
        np.mean(np.abs(values) > entropy + histogram.width), abs=1e-3
    )
    assert histogram.amax("percentile", percentile=100) == 40
