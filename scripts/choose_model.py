"""Picks the smallest model that is nearly as accurate as the unpruned one."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
from datasets.program import reported


def choose_model(
    metrics: dict[str, dict[str, Any]], max_map_drop: float
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The choice and a table of all models, unpruned first.

    `metrics` maps the run (`unpruned`, `retrained/<threshold>`) to its metrics.json of fold 0;
    `max_map_drop` is in points of mAP. When no retrained model stays within it, or none of those is
    smaller, the unpruned one is chosen and the choice says so.
    """
    reference = metrics["unpruned"]
    rows = []
    for run, values in metrics.items():
        rows.append(
            {
                "run": run,
                "mAP": values["mAP"],
                **{f"AP {name}": ap for name, ap in values["average_precision"].items()},
                # NVIDIA's toolkits print no figures of COCO's.
                "COCO AP": values.get("coco", {}).get("AP"),
                "COCO AP50": values.get("coco", {}).get("AP50"),
                "parameters": values["model"]["parameters"],
                "share of parameters": values["model"]["parameters"]
                / reference["model"]["parameters"],
                "MACs": values["model"]["macs"],
                "drop": reference["mAP"] - values["mAP"],
            }
        )
    table = pd.DataFrame(rows)
    within = table[table["drop"] <= max_map_drop]
    chosen = within.sort_values(["parameters", "drop"], kind="stable").iloc[0]
    if not reference["mAP"]:
        reason = (
            "the mAP of the unpruned model is 0, so nothing can be chosen by it: train longer, and "
            "look at `snakemake check_labels`"
        )
    elif chosen["run"] == "unpruned" and len(within) > 1:
        reason = f"no pruned model within prune.max_map_drop {max_map_drop:g} is smaller"
    elif chosen["run"] == "unpruned":
        smallest = table[table["run"] != "unpruned"]["drop"].min()
        reason = (
            f"no pruned model holds prune.max_map_drop {max_map_drop:g}: "
            f"the best of them loses {smallest:.2f} points"
        )
    else:
        # Adding 0 makes a minus nought a plus nought.
        change = round(-chosen["drop"], 2) + 0.0
        reason = (
            f"smallest model that loses at most {max_map_drop:g} points: "
            f"{change:+.2f} points at {100 * chosen['share of parameters']:.1f} % "
            "of the parameters"
        )
    table["chosen"] = table["run"] == chosen["run"]
    choice = {
        "run": chosen["run"],
        "reason": reason,
        "mAP": chosen["mAP"],
        "unpruned_mAP": reference["mAP"],
        "parameters": int(chosen["parameters"]),
        "share_of_parameters": float(chosen["share of parameters"]),
        "max_map_drop": max_map_drop,
    }
    return choice, table


def write_choice(
    runs: list[str],
    metrics_files: list[str],
    model_files: list[str],
    max_map_drop: float,
    choice_file: str,
    table_file: str,
    model_file: str,
    metrics_file: str,
) -> str:
    """Write choice, table and copies of the chosen model and metrics; return a table to print."""
    metrics = {
        run: json.loads(Path(path).read_text(encoding="utf-8"))
        for run, path in zip(runs, metrics_files, strict=True)
    }
    choice, table = choose_model(metrics, max_map_drop)
    table.to_csv(f"{table_file}.part", index=False)
    os.replace(f"{table_file}.part", table_file)
    chosen = runs.index(choice["run"])
    for source, target in (
        (model_files[chosen], model_file),
        (metrics_files[chosen], metrics_file),
    ):
        shutil.copyfile(source, f"{target}.part")
        os.replace(f"{target}.part", target)
    Path(f"{choice_file}.part").write_text(json.dumps(choice, indent=2) + "\n", encoding="utf-8")
    os.replace(f"{choice_file}.part", choice_file)
    shown = table.drop(columns=["drop"]).to_string(index=False, float_format="{:.2f}".format)
    return f"{shown}\n{choice['run']}: {choice['reason']}"


if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        message = write_choice(
            snakemake.params.runs,
            snakemake.input.metrics,
            snakemake.input.models,
            snakemake.params.max_map_drop,
            snakemake.output.choice,
            snakemake.output.table,
            snakemake.output.model,
            snakemake.output.metrics,
        )
        job_log(message)
