"""mAP of a model on fold 0 with other clusters of evaluation: a table in Markdown.

NVIDIA's evaluation merges the boxes of cells whose coverage is above `coverage_threshold` and whose
distance, 1 - IoU, is at most `dbscan_eps`. What suits a model depends on its loss weights, and no
weight is trained again to find out:

  snakemake export --configfile benchmarks/real.yaml --config data_root=/path/to/raw
  python benchmarks/clusters.py results_real --every 3

`--every 3` takes every third image of fold 0. Put what is best under `evaluate` in the config.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from detectnet_v2 import spec_pb2
from detectnet_v2.dataset import Sample, validation_samples
from detectnet_v2.errors import DetectNetError
from detectnet_v2.evaluate import evaluate
from detectnet_v2.spec import load_experiment

MODEL = "model.hdf5"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1, with one line on stderr, for a run that is not finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results_dir of a run")
    parser.add_argument("--run", default="unpruned", help="or retrained/NAME (%(default)s)")
    parser.add_argument("--every", type=int, default=1, help="n-th image (%(default)s)")
    parser.add_argument(
        "--coverage_threshold", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    )
    parser.add_argument("--dbscan_eps", type=float, nargs="+", default=[0.2, 0.3, 0.4])
    args = parser.parse_args(arguments)
    if args.every < 1:
        parser.error(f"--every {args.every}: 1 at least")
    # The workflow's specs name paths relative to the folder that it runs in.
    os.environ.setdefault("DATA_BASE_PATH", str(Path.cwd()))
    try:
        experiment = load_experiment(args.results / "evaluate/fold0_spec.txt")
        samples = validation_samples(experiment)[:: args.every]
        model = args.results / args.run / "weights" / MODEL
        print("| `coverage_threshold` |", *(f"`dbscan_eps` {eps:g} |" for eps in args.dbscan_eps))
        print("|---" * (len(args.dbscan_eps) + 1) + "|")
        for threshold in args.coverage_threshold:
            figures = [
                precision(experiment, model, samples, threshold, eps) for eps in args.dbscan_eps
            ]
            cells = " | ".join(f"{figure:.2f}" for figure in figures)
            print(f"| {threshold:g} | {cells} |", flush=True)
    except DetectNetError as error:
        print(f"clusters: {error}", file=sys.stderr)
        return 1
    return 0


def precision(
    experiment: spec_pb2.Experiment,
    model: Path,
    samples: Sequence[Sample],
    coverage_threshold: float,
    dbscan_eps: float,
) -> float:
    """The mAP in percent, by NVIDIA's rules, with both settings for every class."""
    changed = spec_pb2.Experiment()
    changed.CopyFrom(experiment)
    for entry in changed.postprocessing_config.target_class_config.values():
        entry.clustering_config.coverage_threshold = coverage_threshold
        entry.clustering_config.dbscan_eps = dbscan_eps
    return evaluate(changed, model, samples).evaluation.mean_average_precision


if __name__ == "__main__":
    sys.exit(main())
