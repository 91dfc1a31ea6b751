"""The accuracy figures of a finished run: tables in Markdown, for docs/results.md.

Each model on fold 0 and on the val split, what pruning costs as the mean of several retrainings
with a paired bootstrap interval, what the deployed thresholds do, what near-duplicates are worth:

  snakemake export --configfile benchmarks/real.yaml --config data_root=/path/to/raw
  python benchmarks/accuracy.py results_real --seeds 42 43 44

The seed of the workflow's own retraining is taken from its spec; the others are trained from the
same pruned model into results_real/seeds, and evaluated, unless they are there. `--no-train` takes
what is there. For near-duplicates, run the same with each photograph on its own, and name that:

  snakemake results_loose/unpruned/evaluation/{fold0,val}/metrics.json \\
      --configfile benchmarks/real.yaml --config data_root=/path/to/raw results_dir=results_loose \\
      'duplicates={enabled: false}'
  python benchmarks/accuracy.py results_real --ungrouped results_loose
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import bootstrap
import numpy as np
from detectnet_v2.dataset import validation_samples
from detectnet_v2.errors import DetectNetError
from detectnet_v2.spec import load_experiment

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"
EVALUATED_SPEC = "evaluated_spec.txt"
TITLES = {"fold0": "fold 0", "val": "val split"}
# Stored boxes have three decimals; a figure that is further off was not made by these files.
TOLERANCE = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; 1, with one line on stderr, for a run that is not finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results_dir of a finished run")
    parser.add_argument("--run", help="retrained/NAME (the chosen one)")
    parser.add_argument("--seeds", type=int, nargs="+", help="of the retrainings (the run's own)")
    parser.add_argument("--no-train", action="store_true", help="leave out what is not there")
    parser.add_argument("--ungrouped", type=Path, help="results_dir without duplicates.enabled")
    parser.add_argument("--resamples", type=int, default=2000, help="of the bootstrap (2000)")
    args = parser.parse_args(arguments)
    # The workflow's specs name paths relative to the folder that it runs in.
    os.environ.setdefault("DATA_BASE_PATH", str(Path.cwd()))
    try:
        run = args.run or chosen_run(args.results)
        retrained = retrainings(args.results, run, args.seeds, train=not args.no_train)
        blocks = [
            models_table(args.results, run, retrained),
            *(
                loss_table(args.results, retrained, subset, args.resamples)
                for subset in subsets(args.results)
            ),
            thresholds_table(args.results),
            args.ungrouped and duplicates_table(args.results, args.ungrouped),
        ]
    except DetectNetError as error:
        print(f"accuracy: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(block for block in blocks if block))
    return 0


def read_json(path: Path) -> dict:
    """A result file; DetectNetError when the run has not made it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DetectNetError(
            f"{path}: cannot be read ({error.strerror}): run the workflow up to `export` first"
        ) from error


def chosen_run(results: Path) -> str:
    """The run that the workflow chose; DetectNetError when that is the unpruned model."""
    run = read_json(results / "chosen/choice.json")["run"]
    if run == "unpruned":
        raise DetectNetError(
            f"{results}/chosen: no pruned model was good enough; name one with --run retrained/..."
        )
    return run


def subsets(results: Path) -> list[str]:
    """fold0, and val where the data has that split."""
    return [subset for subset in TITLES if (results / f"evaluate/{subset}_spec.txt").is_file()]


def metrics(folder: Path, subset: str) -> dict:
    """The figures of a model on a subset."""
    return read_json(folder / f"evaluation/{subset}/metrics.json")


def retrainings(
    results: Path, run: str, seeds: Sequence[int] | None, *, train: bool
) -> dict[int, Path]:
    """The folder of the retraining with each seed; what is missing is trained and evaluated.

    Without ``seeds``, the workflow's own. Raises DetectNetError when nothing is left.
    """
    spec = results / run / "train_spec.txt"
    if not spec.is_file():
        raise DetectNetError(f"{spec}: is not there; --run names a folder of {results}")
    text = spec.read_text(encoding="utf-8")
    own = int(load_experiment(spec).random_seed)
    found = {}
    for seed in seeds or [own]:
        folder = results / run if seed == own else results / "seeds" / str(seed) / Path(run).name
        if seed != own and train:
            retrain(results, folder, re.sub(r"(?m)^random_seed:.*$", f"random_seed: {seed}", text))
        if (folder / "evaluation/fold0/metrics.json").is_file():
            found[seed] = folder
    if not found:
        raise DetectNetError(f"{results / run}: not evaluated yet: run the workflow first")
    return found


def retrain(results: Path, folder: Path, spec: str) -> None:
    """Train by ``spec`` into ``folder`` and evaluate, as far as that has not been done."""
    folder.mkdir(parents=True, exist_ok=True)
    path, model = folder / "train_spec.txt", folder / "weights/model.hdf5"
    if not path.is_file() or path.read_text(encoding="utf-8") != spec:
        path.write_text(spec, encoding="utf-8")
        model.unlink(missing_ok=True)
    if not model.is_file():
        for subset in TITLES:
            (folder / f"evaluation/{subset}/metrics.json").unlink(missing_ok=True)
        toolkit("train", "-e", path, "-r", folder, "-n", "model")
    for subset in subsets(results):
        evaluated, target = results / f"evaluate/{subset}_spec.txt", folder / "evaluation" / subset
        if not _is_evaluated(target, evaluated):
            (target / "metrics.json").unlink(missing_ok=True)
            toolkit("evaluate", "-e", evaluated, "-m", model, "-r", target)
        (target / EVALUATED_SPEC).write_bytes(evaluated.read_bytes())


def _is_evaluated(target: Path, spec: Path) -> bool:
    """Whether the metrics in a folder are by this spec: as its copy there says, else the dates."""
    stored, copy = target / "metrics.json", target / EVALUATED_SPEC
    if not stored.is_file():
        return False
    if copy.is_file():
        return copy.read_bytes() == spec.read_bytes()
    return stored.stat().st_mtime >= spec.stat().st_mtime


def toolkit(*command: object) -> None:
    """Run a task of detectnet_v2, its output on stderr; DetectNetError when it fails."""
    words = [sys.executable, "-m", "detectnet_v2", *map(str, command)]
    done = subprocess.run(
        words, env=os.environ | {"PYTHONPATH": str(SCRIPTS)}, stdout=sys.stderr, check=False
    )
    if done.returncode:
        raise DetectNetError(f"`{' '.join(words[2:])}` failed, see above")


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def models_table(results: Path, run: str, retrained: dict[int, Path]) -> str:
    """Every model on every subset, and the mean of the retrainings."""
    known = subsets(results)
    whole = metrics(results / "unpruned", "fold0")["model"]["parameters"]
    head = ["model", "parameters"]
    for subset in known:
        head += [f"{TITLES[subset]} mAP (by class)", "COCO AP50:95"]
    rows = [["unpruned", f"{whole:,}", *_cells([results / "unpruned"], known)]]
    for seed, folder in retrained.items():
        rows.append([f"{run}, seed {seed}", _share(folder, whole), *_cells([folder], known)])
    if len(retrained) > 1:
        folders = list(retrained.values())
        rows.append([f"**mean of {len(folders)}**", "", *_cells(folders, known)])
    seconds = training_seconds(results, "unpruned")
    note = f"\n\nTraining of the unpruned model: {seconds / 60:.1f} min." if seconds else ""
    return markdown(head, rows) + note


def _share(folder: Path, whole: int) -> str:
    parameters = metrics(folder, "fold0")["model"]["parameters"]
    return f"{parameters:,} ({100 * parameters / whole:.1f} %)"


def _cells(folders: Sequence[Path], known: Sequence[str]) -> list[str]:
    cells = []
    for subset in known:
        each = [metrics(folder, subset) for folder in folders]
        classes = {
            name: statistics.mean(m["average_precision"][name] for m in each)
            for name in each[0]["average_precision"]
        }
        by_class = ", ".join(f"{name} {value:.2f}" for name, value in classes.items())
        cells.append(f"{statistics.mean(m['mAP'] for m in each):.2f} ({by_class})")
        coco = [m["coco"]["AP"] for m in each]
        cells.append("no faces" if None in coco else f"{statistics.mean(coco):.2f}")
    return cells


def training_seconds(results: Path, run: str) -> float | None:
    """Wall-clock time of a training, from Snakemake's benchmark file; None when there is none."""
    path = results / f"benchmarks/train/{run}.tsv"
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as stream:
        return float(next(csv.DictReader(stream, delimiter="\t"))["s"])


def loss_table(results: Path, retrained: dict[int, Path], subset: str, resamples: int) -> str:
    """What the retrained models lose against the unpruned one on the same images."""
    experiment = load_experiment(results / f"evaluate/{subset}_spec.txt")
    samples = validation_samples(experiment)
    models = [
        ranked_model(folder, subset, samples, experiment)
        for folder in (results / "unpruned", *retrained.values())
    ]
    mode = experiment.evaluation_config.average_precision_mode
    lost = bootstrap.paired_difference(models[0], models[1:], mode, resamples=resamples)
    return (
        f"What pruning costs on {TITLES[subset]}, points: the unpruned model minus the mean of "
        f"{len(retrained)} retraining{'s' * (len(retrained) > 1)} (95 % interval, paired bootstrap "
        f"over {len(samples)} images, {resamples} resamples). Every image counts once "
        "here; in the table above the first ones count twice where NVIDIA's rules fill up a batch."
        "\n\n"
    ) + markdown(list(lost), [[str(interval) for interval in lost.values()]])


def ranked_model(folder: Path, subset: str, samples, experiment) -> dict[str, bootstrap.Ranked]:
    """The matched detections of a model; DetectNetError when they do not give its own figures."""
    stored = folder / f"evaluation/{subset}/detections.csv"
    found = bootstrap.read_detections(stored, samples, experiment)
    model = bootstrap.rank(samples, found, experiment)
    # NVIDIA's evaluation fills up its last batch with the first images.
    counts = np.ones(len(samples), int)
    wrapped = -len(samples) % experiment.training_config.batch_size_per_gpu
    for image in range(wrapped):
        counts[image % len(samples)] += 1
    mode = experiment.evaluation_config.average_precision_mode
    again, told = bootstrap.figures(model, counts, mode)[-1], metrics(folder, subset)["mAP"]
    if abs(again - told) > TOLERANCE:
        raise DetectNetError(
            f"{stored}: gives a mAP of {again:.2f}, metrics.json beside it {told:.2f}: they are of "
            "different data or settings; evaluate again"
        )
    return model


def thresholds_table(results: Path) -> str:
    """nvinfer's thresholds, tuned on fold 0, on both subsets; empty before an export."""
    rows = []
    for path in sorted(results.glob("export/*/clustering.json")):
        document = read_json(path)
        for title in ("nvinfer_defaults", "tuned"):
            row = [path.parent.name, title.replace("_", " ")]
            for subset in subsets(results):
                effect = document.get(subset, {}).get(title)
                row.append("" if effect is None else _working_point(effect))
            rows.append(row)
    if not rows:
        return ""
    head = ["model", "nvinfer's numbers", *(TITLES[subset] for subset in subsets(results))]
    return "The thresholds of the DeepStream configs, tuned on fold 0.\n\n" + markdown(head, rows)


def _working_point(effect: dict) -> str:
    points = ", ".join(
        f"{name} {100 * effect['precision'][name]:.0f} % / {100 * effect['recall'][name]:.0f} %"
        for name in effect["precision"]
    )
    return f"mAP {effect['mAP']:.2f}; precision / recall {points}"


def duplicates_table(results: Path, ungrouped: Path) -> str:
    """The unpruned model of both runs: what a fold gains that has relatives of training images.

    The val split is the same in both, so its column tells how much better the model really is.
    """
    known = subsets(results)
    rows = [
        [title, *_cells([folder / "unpruned"], known)]
        for title, folder in (("kept on one side", results), ("left to chance", ungrouped))
    ]
    head = ["near-duplicates"]
    for subset in known:
        head += [f"{TITLES[subset]} mAP (by class)", "COCO AP50:95"]
    return markdown(head, rows)


if __name__ == "__main__":
    sys.exit(main())
