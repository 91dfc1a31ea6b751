"""What an option of training is worth: the same short training with and without it, several seeds.

Trains on the tfrecords that a spec of the workflow names. The network is a ResNet with a share of
the usual filters, so that a variant takes minutes; variants are pieces of a spec, merged over it:

  make demo
  python benchmarks/recipe.py results_demo/unpruned/train_spec.txt --epochs 14 \\
      --variant 'giou=native { bbox_loss: L1_GIOU }' \\
      --variant 'decay=native { weight_decay: 0.05 }'

Figures are those of fold 0 after the last epoch, by NVIDIA's rules. A change that is smaller than
the spread of the seeds says nothing.
"""

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from google.protobuf import text_format
from google.protobuf.message import Message

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from detectnet_v2 import spec_pb2
from detectnet_v2.dataset import target_classes
from detectnet_v2.model import DetectNetV2, count_parameters
from detectnet_v2.model_file import save_model
from detectnet_v2.spec import load_experiment

GRANULARITY = 8


def narrow_network(
    experiment: spec_pb2.Experiment, layers: int, share: float, seed: int
) -> DetectNetV2:
    """A new network whose layers have ``share`` of their filters, in multiples of eight."""
    size = experiment.augmentation_config.preprocessing
    classes = target_classes(experiment)
    sizes = {"input_height": size.output_image_height, "input_width": size.output_image_width}
    with torch.device("meta"):
        full = DetectNetV2(layers, len(classes), **sizes).widths
    widths = {
        name: max(GRANULARITY, round(width * share / GRANULARITY) * GRANULARITY)
        for name, width in full.items()
    }
    torch.manual_seed(seed)
    return DetectNetV2(layers, len(classes), widths=widths, class_names=classes, **sizes)


def variant_spec(
    base: spec_pb2.Experiment, text: str, *, epochs: int, seed: int, model: Path
) -> spec_pb2.Experiment:
    """``base`` with ``text`` merged over it, for a short training.

    Lists are replaced, and entries of maps are replaced by their key.
    """
    experiment = spec_pb2.Experiment()
    experiment.CopyFrom(base)
    experiment.training_config.num_epochs = epochs
    experiment.evaluation_config.first_validation_epoch = epochs
    overlay = text_format.Parse(text, spec_pb2.Experiment())
    clear_lists(experiment, overlay)
    experiment.MergeFrom(overlay)
    experiment.random_seed = seed
    experiment.model_config.load_graph = True
    experiment.model_config.pretrained_model_file = str(model)
    return experiment


def clear_lists(message: Message, overlay: Message) -> None:
    """Empty the repeated fields of ``message`` that ``overlay`` fills, in all depths."""
    for field, value in overlay.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            continue
        if field.is_repeated:
            message.ClearField(field.name)
        elif field.message_type is not None:
            clear_lists(getattr(message, field.name), value)


def train(experiment: spec_pb2.Experiment, folder: Path) -> dict[str, float]:
    """Train in a process of its own; the last epoch's figures, and the seconds that it took."""
    folder.mkdir(parents=True)
    spec = folder / "spec.txt"
    spec.write_text(text_format.MessageToString(experiment), encoding="utf-8")
    command = [sys.executable, "-m", "detectnet_v2", "train", "-e", str(spec), "-r", str(folder)]
    scripts = str(Path(__file__).resolve().parents[1] / "scripts")
    environment = os.environ | {"PYTHONPATH": scripts}
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        started = time.monotonic()
        done = subprocess.run(
            [*command, "-n", "model"], env=environment, stderr=log, stdout=log, check=False
        )
    if done.returncode:
        sys.exit((folder / "log.txt").read_text(encoding="utf-8")[-2000:])
    with (folder / "training.csv").open(newline="", encoding="utf-8") as stream:
        last = list(csv.DictReader(stream))[-1]
    figures = {key: float(last[key]) for key in last if key == "mAP" or key.startswith("AP ")}
    return figures | {"seconds": time.monotonic() - started}


def main() -> None:
    """Train every variant with every seed, one seed after the other, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spec", type=Path, help="training spec of the workflow")
    parser.add_argument("--variant", action="append", default=[], help="name=piece of a spec")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--layers", type=int, default=10)
    parser.add_argument("--share", type=float, default=0.25, help="of the usual filters (0.25)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--jobs", type=int, default=1, help="trainings at once (1)")
    parser.add_argument("--output", type=Path, help="folder of all runs, kept (a temporary one)")
    args = parser.parse_args()
    variants = {"base": ""}
    for text in args.variant:
        name, _, piece = text.partition("=")
        variants[name] = piece
    # The workflow's specs name paths relative to the folder that it runs in.
    os.environ.setdefault("DATA_BASE_PATH", str(Path.cwd()))
    base = load_experiment(args.spec)
    if args.output:
        run_all(args, base, variants, args.output)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run_all(args, base, variants, Path(folder))


def run_all(
    args: argparse.Namespace, base: spec_pb2.Experiment, variants: dict[str, str], root: Path
) -> None:
    """Train all, ``args.jobs`` at a time and seed by seed, and print the table."""
    root.mkdir(parents=True, exist_ok=True)
    models = {}
    for seed in args.seeds:
        network = narrow_network(base, args.layers, args.share, seed)
        models[seed] = root / f"start-{seed}.hdf5"
        save_model(network, models[seed])

    def one(task: tuple[int, str]) -> dict[str, float]:
        seed, name = task
        experiment = variant_spec(
            base, variants[name], epochs=args.epochs, seed=seed, model=models[seed]
        )
        figures = train(experiment, root / f"{name}-{seed}")
        print(f"seed {seed} {name}: {figures}", file=sys.stderr, flush=True)
        return figures

    tasks = [(seed, name) for seed in args.seeds for name in variants]
    with ThreadPoolExecutor(args.jobs) as pool:
        figures = dict(zip(tasks, pool.map(one, tasks), strict=True))
    results = {name: [figures[seed, name] for seed in args.seeds] for name in variants}
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}")
    print(
        f"ResNet{args.layers} with {args.share:g} of the filters ({count_parameters(network):,} "
        f"parameters), {args.epochs} epochs, seeds {', '.join(map(str, args.seeds))}"
    )
    print(table(results))


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Markdown: mean mAP and its change against the first variant, each seed, classes, time."""
    columns = [key for key in next(iter(results.values()))[0] if key.startswith("AP ")]
    heads = ["variant", "mAP", "change", "of each seed", *columns, "time"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    base = next(iter(results.values()))
    for name, runs in results.items():
        mean = {key: statistics.mean(run[key] for run in runs) for key in runs[0]}
        change = mean["mAP"] - statistics.mean(run["mAP"] for run in base)
        seeds = ", ".join(f"{run['mAP']:.1f}" for run in runs)
        time_share = mean["seconds"] / statistics.mean(run["seconds"] for run in base)
        cells = [name, f"{mean['mAP']:.2f}", f"{change:+.2f}", seeds]
        cells += [f"{mean[key]:.1f}" for key in columns]
        lines.append("| " + " | ".join([*cells, f"{time_share:.2f}"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
