"""DeepStream releases on Jetson: which boards they run on and which TensorRT they bring.

Sources: NVIDIA's DeepStream migration guides and release notes 6.0 to 9.2; the TensorRT operator
tables of onnx-tensorrt for the highest ONNX opset.
"""

from dataclasses import dataclass

from deepstream.errors import DeepStreamError

MAXWELL, PASCAL, VOLTA, AMPERE, BLACKWELL = "maxwell", "pascal", "volta", "ampere", "blackwell"
DESK = "desk"

# TensorRT 10.1 deprecates calibration caches in favour of Q/DQ nodes, and still reads them.
# NVIDIA's migration guide to DeepStream 8.0 says to run models that have a cache in FP16.
_FIRST_TO_DEPRECATE_CALIBRATION = (10, 1)
_FIRST_WITHOUT_CALIBRATION = (8, 0)


@dataclass(frozen=True)
class Release:
    """One DeepStream release; `gpus` are the Jetson GPU generations that it supports."""

    deepstream: str
    jetpack: str
    cuda: str
    tensorrt: str
    gpus: frozenset[str]

    @property
    def order(self) -> tuple[int, ...]:
        """Comparable form of the version."""
        return version_order(self.deepstream)

    @property
    def takes_calibration(self) -> bool:
        """Whether a model runs in INT8 by a calibration cache."""
        return self.order < _FIRST_WITHOUT_CALIBRATION

    @property
    def deprecates_calibration(self) -> bool:
        """Whether its TensorRT warns of calibration caches."""
        return version_order(self.tensorrt) >= _FIRST_TO_DEPRECATE_CALIBRATION


def version_order(version: str) -> tuple[int, ...]:
    """Turn "6.0.1" into (6, 0, 1), raising DeepStreamError for anything else."""
    parts = str(version).split(".")
    if not all(part.isdigit() for part in parts):
        raise DeepStreamError(f"DeepStream version {version!r}: expected digits and dots, as 6.0.1")
    return tuple(int(part) for part in parts)


_FIRST = frozenset({MAXWELL, PASCAL, VOLTA})
_SECOND = frozenset({VOLTA, AMPERE})

RELEASES = {
    release.deepstream: release
    for release in (
        Release("5.0", "4.4", "10.2", "7.1.3", _FIRST),
        Release("5.1", "4.5.1", "10.2", "7.1.3", _FIRST),
        Release("6.0", "4.6", "10.2", "8.0.1", _FIRST),
        Release("6.0.1", "4.6.1", "10.2", "8.2.1", _FIRST),
        Release("6.1", "5.0.1", "11.4", "8.4.0", _SECOND),
        Release("6.1.1", "5.0.2", "11.4", "8.4.1", _SECOND),
        Release("6.2", "5.1", "11.4", "8.5.2", _SECOND),
        Release("6.3", "5.1.2", "11.4", "8.5.2", _SECOND),
        Release("6.4", "6.0", "12.2", "8.6.2", frozenset({AMPERE})),
        Release("7.0", "6.0", "12.2", "8.6.2", frozenset({AMPERE})),
        Release("7.1", "6.1", "12.6", "10.3.0", frozenset({AMPERE})),
        Release("8.0", "7.0", "13.0", "10.13.2", frozenset({BLACKWELL})),
        Release("9.0", "7.1", "13.0", "10.13.2", frozenset({BLACKWELL})),
        Release("9.1", "7.2", "13.2", "10.16.0", frozenset({AMPERE, BLACKWELL, DESK})),
        Release("9.2", "7.2", "13.2", "10.16.1", frozenset({AMPERE, BLACKWELL})),
    )
}

# First TensorRT version from which the opset holds, highest first. 8.4's early access release
# (8.4.0, in DeepStream 6.1) still stops at 13; after 10.1 no table was read, so 20 stays.
_OPSETS = (
    ((10, 0, 0), 20),
    ((9, 0, 0), 19),
    ((8, 4, 1), 17),
    ((8, 0, 0), 13),
    ((7, 0, 0), 11),
    ((6, 0, 0), 10),
    ((5, 1, 0), 9),
)


def release(version: str) -> Release:
    """Look up a DeepStream release, raising DeepStreamError with the known ones.

    Zeros at the end do not count: deepstream-app of release 6.0 says 6.0.0.
    """
    wanted = _without_zeros(version_order(version))
    for known in RELEASES.values():
        if _without_zeros(known.order) == wanted:
            return known
    raise DeepStreamError(f"DeepStream {version}: unknown release, known: {', '.join(RELEASES)}")


def _without_zeros(order: tuple[int, ...]) -> tuple[int, ...]:
    while order and order[-1] == 0:
        order = order[:-1]
    return order


def highest_opset(tensorrt: str) -> int:
    """Return the highest ONNX opset that a TensorRT version reads."""
    order = version_order(tensorrt)
    for first, opset in _OPSETS:
        if order >= first:
            return opset
    raise DeepStreamError(f"TensorRT {tensorrt}: reads no ONNX that this project can write")
