"""Histograms of activations that grow with the data, and the INT8 ranges that follow from them."""

import cv2
import numpy as np

BINS = 4096
LEVELS = 128
"""Values of a positive INT8 number, zero included."""

# Elements at once: the intermediate arrays stay in the processor's cache.
_CHUNK = 1 << 18


class ActivationHistogram:
    """Counts of |x| in equal bins from 0 to `range`, a power of two above the largest value.

    When a larger value comes, the range doubles and neighbouring bins are added up. Since ranges
    are powers of two the counts are those that the final range would have given from the start,
    whatever the order of the data. Exact zeros are left out: every scale represents them.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.maximum = 0.0
        self.exponent: int | None = None

    @property
    def width(self) -> float:
        """Width of a bin."""
        return 0.0 if self.exponent is None else 2.0**self.exponent / BINS

    def add(self, values: np.ndarray) -> None:
        """Count the values of a float32 array of any shape.

        Raises:
            ValueError: when a value is infinite or not a number.
        """
        values = values.reshape(-1)
        if not values.size:
            return
        largest = max(float(values.max()), -float(values.min()))
        if not np.isfinite(largest):
            raise ValueError("infinite or NaN")
        if largest == 0:
            return
        self._cover(largest)
        factor = np.float32(1 / self.width)
        magnitudes = np.empty(min(_CHUNK, values.size), np.float32)
        bins = np.empty(magnitudes.shape, np.uint16)
        for start in range(0, values.size, _CHUNK):
            chunk = values[start : start + _CHUNK]
            scaled, indices = magnitudes[: chunk.size], bins[: chunk.size]
            np.abs(chunk, out=scaled)
            zeros = chunk.size - np.count_nonzero(scaled)
            np.multiply(scaled, factor, out=scaled)
            np.copyto(indices, scaled, casting="unsafe")
            # OpenCV counts 16-bit values several times faster than NumPy does.
            counts = cv2.calcHist([indices.reshape(1, -1)], [0], None, [BINS], [0, BINS])
            self.counts += counts.reshape(-1).astype(np.int64)
            self.counts[0] -= zeros

    def merge(self, other: "ActivationHistogram") -> None:
        """Add the counts of another histogram, which is left unusable."""
        if other.exponent is None:
            return
        self._cover(other.maximum)
        other._cover(self.maximum)
        self.counts += other.counts

    def amax(self, method: str = "entropy", *, percentile: float = 99.99) -> float:
        """The largest magnitude that INT8 is to represent; larger ones are clipped to it.

        Args:
            method: `entropy` for the range that loses least information, `max` for the largest
                value seen, `percentile` for the one that this share of the values does not exceed.
            percentile: in percent.

        Returns:
            A positive number, 1 when all values were zero.
        """
        if self.exponent is None:
            return 1.0
        if method == "entropy":
            return min(entropy_range(self.counts) * self.width, self.maximum)
        if method == "percentile":
            wanted = self.counts.sum() * percentile / 100
            edge = int(np.searchsorted(np.cumsum(self.counts), wanted)) + 1
            return min(edge * self.width, self.maximum)
        return self.maximum

    def clipped(self, amax: float) -> float:
        """Share of the values other than zero in the bins above that of `amax`."""
        if self.exponent is None:
            return 0.0
        first = int(amax / self.width) + 1
        return float(self.counts[first:].sum() / self.counts.sum())

    def _cover(self, largest: float) -> None:
        """Make the range larger than `largest`."""
        self.maximum = max(self.maximum, largest)
        exponent = int(np.frexp(np.float32(largest))[1])
        if self.exponent is None:
            self.exponent = exponent
        while self.exponent < exponent:
            self.counts[: BINS // 2] = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[BINS // 2 :] = 0
            self.exponent += 1


def entropy_range(counts: np.ndarray, levels: int = LEVELS) -> int:
    """Find how many bins to keep so that quantising them loses the least information.

    For every number of bins i the values above are clipped into bin i - 1, which gives the
    distribution P; Q is P without them, averaged over `levels` groups of bins and spread again
    over the bins that are not empty. The i with the smallest Kullback-Leibler divergence of Q
    from P wins, the largest of equals (S. Migacz, 8-bit Inference with TensorRT, GTC 2017). All
    sums over bins come from running totals, so that every i is tried at once.

    Args:
        counts: values by bin.
        levels: quantisation levels.

    Returns:
        Number of bins, from `levels` to that of the last bin that is not empty.
    """
    occupied = int(np.flatnonzero(counts)[-1]) + 1
    if occupied <= levels:
        return occupied
    h = counts[:occupied].astype(np.float64)
    kept = np.arange(levels, occupied + 1)
    edges = kept[:, None] * np.arange(levels + 1) // levels
    mass = np.diff(_running(h)[edges], axis=1)
    filled = np.diff(_running(h > 0)[edges], axis=1)
    log_level = _log(mass / np.maximum(filled, 1))
    inside = _running(h)[kept]
    outside = h.sum() - inside
    last = h[kept - 1]
    p_log_p = _running(h * _log(h))[kept - 1] + (last + outside) * _log(last + outside)
    p_log_q = (mass * log_level).sum(axis=1) + outside * log_level[:, -1]
    divergence = (p_log_p - p_log_q) / h.sum() - np.log(h.sum()) + _log(inside)
    # Clipped values fall into a bin that Q leaves empty: infinitely far.
    divergence[(outside > 0) & (last == 0)] = np.inf
    return int(kept[len(kept) - 1 - np.argmin(divergence[::-1])])


def _running(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, 2, ... values."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _log(values: np.ndarray) -> np.ndarray:
    """Natural logarithm; 0 for 0, where it is always multiplied by 0."""
    return np.log(np.where(values > 0, values, 1.0))
