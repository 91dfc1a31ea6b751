"""Reads what NVIDIA's programs print and write: evaluations, pruning ratios, status.json."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from toolkits.errors import ToolkitError

_NUMBER = r"([-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|nan|inf))"
_COST = re.compile(rf"Validation cost: {_NUMBER}", re.I)
_MEAN = re.compile(rf"Mean average_precision \(in %\): {_NUMBER}", re.I)
_TIME = re.compile(rf"Median Inference Time: {_NUMBER}", re.I)
_RATIO = re.compile(rf"Pruning ratio \(pruned model / original model\): {_NUMBER}", re.I)
# TLT 2 draws its table with blanks, TAO with bars.
_ROW = re.compile(rf"^\s*\|?\s*(\S+)\s+(?:\|\s*)?{_NUMBER}\s*\|?\s*$", re.I)
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def parse_evaluation(text: str, classes: Sequence[str]) -> dict[str, Any]:
    """The last evaluation in what `evaluate` or `train` printed; percent and seconds.

    Returns mAP, average_precision by class, validation_cost and median_inference_time_s.

    Raises:
        ToolkitError: there is none, or the table lacks a class.
    """
    text = _ESCAPES.sub("", text).replace("\r", "\n")
    means = list(_MEAN.finditer(text))
    if not means:
        raise ToolkitError('the output has no line "Mean average_precision (in %): ..."')
    start = means[-1]
    rest = text[start.end() :]
    end = _TIME.search(rest)
    found = {
        row[1]: float(row[2])
        for line in rest[: end.start() if end else None].splitlines()
        if (row := _ROW.match(line)) and row[1] in classes
    }
    missing = [name for name in classes if name not in found]
    if missing:
        raise ToolkitError(
            f"the output's table of average precision has no class {missing[0]}, only "
            f"{', '.join(found) or 'none of the configured'}"
        )
    costs = _COST.findall(text[: start.start()])
    return {
        "mAP": float(start[1]),
        "average_precision": {name: found[name] for name in classes},
        "validation_cost": float(costs[-1]) if costs else None,
        "median_inference_time_s": float(end[1]) if end else None,
    }


def parse_pruning_ratio(text: str) -> float:
    """Parameters after pruning / before, from what `prune` printed.

    Raises ToolkitError when there is no such line.
    """
    found = _RATIO.findall(_ESCAPES.sub("", text))
    if not found:
        raise ToolkitError('the output has no line "Pruning ratio (pruned model / original model)"')
    return float(found[-1])


def read_status(path: Path) -> dict[str, Any] | None:
    """The last line of a status.json, one JSON object a line; None where there is no such file.

    A line that is cut off by a crash is left out.
    """
    if not path.is_file():
        return None
    last = None
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict) and "status" in entry:
            last = entry
    return last


def check_status(path: Path, what: str) -> None:
    """Raise ToolkitError when the last thing a task told is that it did not succeed.

    NVIDIA's training saves a model and exits with 0 after an interrupt. Toolkits before TAO write
    no status.json, and nothing is known then.
    """
    last = read_status(path)
    if last is not None and last["status"] in ("FAILURE", "STARTED", "SKIPPED"):
        told = str(last.get("message", "")).strip()
        raise ToolkitError(
            f"{path}: {what} ended with {last['status']}{': ' + told if told else ''}; "
            "run it again, it goes on from its last checkpoint"
        )
