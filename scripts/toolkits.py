"""What the workflow knows of a toolkit, in one table: commands, file suffixes and modules."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Toolkit:
    """One implementation of the `detectnet_v2` command line.

    commands: program and words for each task; the flags behind them are the same everywhere.
    model_suffix: what trained and pruned models are called.
    modules: Python modules under scripts/ behind each task, digested to notice changed code.
    """

    commands: dict[str, str]
    model_suffix: str
    modules: dict[str, tuple[str, ...]]


TASKS = ("dataset_convert", "train", "evaluate", "prune", "export")

TOOLKITS = {
    "native": Toolkit(
        commands={task: f"detectnet_v2 {task}" for task in TASKS},
        model_suffix=".hdf5",
        modules={task: (f"detectnet_v2.{task}",) for task in TASKS},
    ),
}
