"""Makes torchvision importable beside a PyTorch that its compiled operators do not load in.

torchvision registers shapes for `nms` and `qnms` when it is imported, which fails while the
operators themselves are missing. Their schemas are defined here, with a NumPy body for `nms`, the
only one that a YOLO calls.
"""

import numpy as np
import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_library: torch.library.Library | None = None


def define() -> None:
    """Define the operators unless the compiled ones are there; call it before the import."""
    global _library  # noqa: PLW0603 - a Library that is collected takes its operators along
    if _library is not None:
        return
    try:
        import torchvision  # noqa: F401, PLC0415
    except RuntimeError:
        # It failed at `nms`; the next import starts afresh.
        pass
    else:
        return
    _library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        _library.define(schema)
    _library.impl("nms", _nms, "CPU")
    from torchvision.ops import boxes  # noqa: PLC0415

    # The Python wrapper asks whether the compiled library was loaded.
    boxes._assert_has_ops = lambda: None


def _nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    kept = suppress(boxes.numpy(), scores.numpy(), iou_threshold)
    return torch.from_numpy(kept)


def suppress(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression: indices int64 of the boxes (n, 4) that stay, best first."""
    order = np.argsort(-scores, kind="stable")
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        overlap = np.maximum(high - low, 0).prod(axis=1)
        union = areas[best] + areas[rest] - overlap
        order = rest[overlap <= iou_threshold * union]
    return np.array(kept, dtype=np.int64)
