"""What NVIDIA published for this recipe, to lay beside a run's own figures.

Frames per second, mAP and the source stand in jetson.table, which prints them too.
"""

from dataclasses import dataclass

from jetson.table import PUBLISHED_MAP


@dataclass(frozen=True)
class Published:
    """A published model.

    mean_average_precision and average_precision: percent. shares: share of the unpruned model's
    parameters; the source says "12 %" for the pruned one and leaves open whether kept or removed,
    so that it has two.
    """

    name: str
    mean_average_precision: float
    average_precision: dict[str, float]
    shares: tuple[float, ...]


MODELS = (
    Published(
        "unpruned", PUBLISHED_MAP["unpruned"], {"mask": 87.59, "no-mask": 84.65}, shares=(1.0,)
    ),
    Published(
        "pruned", PUBLISHED_MAP["pruned"], {"mask": 86.72, "no-mask": 84.27}, shares=(0.12, 0.88)
    ),
)
