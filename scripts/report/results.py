"""Reads the results folder: where each table and document of a run lies, and what makes it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from configuration import pruning_branches
from toolkits.table import TOOLKITS

from report.errors import NotThereYet, ReportError

# What no toolkit of NVIDIA's writes.
NATIVE_FILES = ("training.csv", "precision_recall.csv", "detections.csv")
CHOICE = ("run", "reason", "mAP", "unpruned_mAP", "parameters", "share_of_parameters")


@dataclass(frozen=True)
class Results:
    """A results folder and the configuration of the run that filled it.

    `config` is the workflow's configuration with its defaults filled in. Paths given to the methods
    are relative to `root`, with forward slashes.
    """

    root: Path
    config: Mapping[str, Any]

    @property
    def classes(self) -> list[str]:
        """Class names in channel order."""
        return list(self.config["classes"])

    @property
    def network(self) -> tuple[int, int]:
        """Width and height of the network's input, pixels."""
        return self.config["image_width"], self.config["image_height"]

    @cached_property
    def splits(self) -> list[str]:
        """The splits that some dataset has, `train` first."""
        datasets = self.config["datasets"].values()
        return [s for s in ("train", "val") if any(s in d["splits"] for d in datasets)]

    def datasets(self, split: str) -> list[str]:
        """Names of the datasets that have the split, in config order."""
        return [name for name, d in self.config["datasets"].items() if split in d["splits"]]

    @cached_property
    def thresholds(self) -> list[str]:
        """The pruning thresholds or ratios as they appear in folder names, largest model first."""
        return list(pruning_branches(self.config["prune"]))

    @property
    def runs(self) -> list[str]:
        """Folders of the trained models, unpruned first."""
        return ["unpruned", *(f"retrained/{threshold}" for threshold in self.thresholds)]

    @cached_property
    def choice(self) -> dict[str, Any]:
        """The chosen run and why; raises NotThereYet before there is a choice."""
        return self.document("chosen/choice.json", CHOICE)

    @property
    def chosen(self) -> str | None:
        """Folder of the chosen model, None before there is a choice."""
        try:
            run = self.choice["run"]
        except NotThereYet:
            return None
        return run if run in self.runs else None

    def command(self, target: str = "all") -> str:
        """What the user types to make a target."""
        return f"snakemake {target}"

    def absent(self, path: str, target: str = "all", stage: str = "") -> NotThereYet:
        """That a file is not there yet or, under the configured toolkit, cannot be.

        `target` makes it; `stage` is what toolkits.table calls its stage, where one may be missing.
        """
        name = self.config["toolkit"]
        licence = self.config["export"].get("accept_nvidia_eff_licence", False)
        lacks = TOOLKITS[name].lacks(licence)
        file = path.rpartition("/")[2]
        reason = ""
        if name != "native" and file in NATIVE_FILES:
            reason = f"The toolkit {name} writes no {file}."
        elif stage in lacks:
            reason = f"Not with the toolkit {name}: {lacks[stage]}."
        return NotThereYet(path, self.command(target), reason)

    def exists(self, path: str) -> bool:
        """Whether a file of the results is there."""
        return (self.root / path).exists()

    def table(
        self,
        path: str,
        columns: Sequence[str],
        target: str = "all",
        text: Sequence[str] = (),
    ) -> pd.DataFrame:
        """A CSV table; columns in `text` are read as they stand, empty for nothing.

        Raises:
            NotThereYet: the file is not there.
            ReportError: it cannot be read or lacks one of `columns`.
        """
        try:
            frame = pd.read_csv(
                self.root / path,
                dtype=dict.fromkeys(text, str),
                keep_default_na=False,
                na_values=["", "nan"],
            )
        except FileNotFoundError as error:
            raise self.absent(path, target) from error
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise self._unusable(path, f"no CSV table ({error})", target) from error
        missing = [name for name in columns if name not in frame.columns]
        if missing:
            there = ", ".join(map(str, frame.columns))
            raise self._unusable(path, f"has no column {missing[0]!r} but {there}", target)
        for name in text:
            if name in frame.columns:
                frame[name] = frame[name].fillna("")
        return frame

    def document(self, path: str, keys: Sequence[str], target: str = "all") -> dict[str, Any]:
        """A JSON object that has `keys`.

        Raises:
            NotThereYet: the file is not there.
            ReportError: it is no JSON object or lacks a key.
        """
        try:
            text = (self.root / path).read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise self.absent(path, target) from error
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise self._unusable(path, f"no JSON ({error})", target) from error
        if not isinstance(document, dict):
            raise self._unusable(path, "holds no JSON object", target)
        missing = [key for key in keys if key not in document]
        if missing:
            raise self._unusable(path, f"has no {missing[0]!r}", target)
        return document

    def _unusable(self, path: str, fault: str, target: str) -> ReportError:
        return ReportError(
            f"{self.root / path}: {fault}; delete it and run `{self.command(target)}`"
        )


def run_label(run: str) -> str:
    """A trained model's name for axes and tables: `unpruned`, `pruned 0.5`, `pruned to 0.12`."""
    folder, _, threshold = run.partition("/")
    threshold = threshold.replace("ratio-", "to ")
    return f"pruned {threshold}" if threshold else folder
