"""evaluate: the average precision of a model on the spec's validation data, in files and printed.

Figures by NVIDIA's rules and by COCO's are printed both; DIR/metrics.json has them with the size of
the model, DIR/precision_recall.csv the curves, DIR/detections.csv every detection.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from detectnet_v2 import objectives, postprocess, spec_pb2
from detectnet_v2.dataset import Sample, target_classes, training_samples, validation_samples
from detectnet_v2.errors import DetectNetError
from detectnet_v2.evaluation_report import Result, report, write_results
from detectnet_v2.metrics import evaluate_detections
from detectnet_v2.network import Network, load_network
from detectnet_v2.progress import progress
from detectnet_v2.spec import load_experiment
from detectnet_v2.status import task_status

COMPUTE_BATCH = 8
"""Images that go through the network at once; the result is that of any other number."""

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the task."""
    parser.add_argument("-e", "--experiment_spec", required=True, help="spec of the training")
    parser.add_argument(
        "-m", "--model_path", required=True, type=Path, help=".hdf5, or .onnx of export"
    )
    parser.add_argument("-r", "--results_dir", type=Path, help="where the result files go")
    parser.add_argument("-k", "--key", default="", help="accepted and not needed")
    parser.add_argument("-f", "--framework", choices=["tlt", "tensorrt"], default="tlt", help="tlt")
    parser.add_argument(
        "--use_training_set",
        action="store_true",
        help="evaluate on the data that training takes, without augmentation",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")
    # NVIDIA's evaluate accepts and ignores these, for command lines of TAO Deploy.
    for flags in (("-i", "--image_dir"), ("-l", "--label_dir"), ("-b", "--batch_size")):
        parser.add_argument(*flags, help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Evaluate the model, print the figures and write them."""
    with task_status(args.results_dir, "DetectNet_v2 Evaluation") as status:
        if args.framework == "tensorrt":
            raise DetectNetError(
                "-f tensorrt: an engine runs on its own device only: leave the flag away and give "
                "the .onnx as -m"
            )
        experiment = load_experiment(args.experiment_spec)
        samples = _samples(experiment, args.use_training_set)
        result = evaluate(experiment, args.model_path, samples)
        print(report(result))
        status.kpi = {
            "validation cost": round(result.cost, 8),
            "mean average precision": round(result.evaluation.mean_average_precision, 4),
        }
        status.categorical = {
            "average_precision": {
                name: round(value, 4) for name, value in result.evaluation.average_precision.items()
            }
        }
        status.write("Evaluation metrics generated.")
        if args.results_dir is not None:
            write_results(args.results_dir, result, samples)
    return 0


def _samples(experiment: spec_pb2.Experiment, use_training_set: bool) -> list[Sample]:
    if use_training_set:
        return training_samples(experiment)
    samples = validation_samples(experiment)
    if not samples:
        raise DetectNetError(
            "dataset_config: names no validation data: add validation_fold or "
            "validation_data_source, or give --use_training_set"
        )
    return samples


def evaluate(
    experiment: spec_pb2.Experiment, model_path: Path, samples: Sequence[Sample]
) -> Result:
    """Return the figures of a model on some samples.

    NVIDIA's figures are those of ceil(N / batch_size_per_gpu) full batches, the last filled up
    with the first samples.

    Raises:
        DetectNetError: the model does not fit the spec, or an image cannot be read.
    """
    # Torch, for the cost; an evaluation loads it in any case.
    from detectnet_v2.ground_truth import Placement, ground_truth  # noqa: PLC0415
    from detectnet_v2.precision import set_threads  # noqa: PLC0415

    classes = target_classes(experiment)
    threads = set_threads(experiment.native.threads, 1)
    clusterings = postprocess.evaluation_clustering(experiment)
    network = load_network(
        model_path,
        classes,
        precision=experiment.native.evaluation_precision or "float32",
        threads=threads,
    )
    preprocessing = experiment.augmentation_config.preprocessing
    size = preprocessing.output_image_width, preprocessing.output_image_height
    if size != (network.width, network.height):
        raise DetectNetError(
            f"{model_path}: takes images of {network.width} x {network.height}, the spec's "
            f"augmentation_config.preprocessing makes {size[0]} x {size[1]}"
        )
    described = postprocess.describe(clusterings, classes)
    for name, settings in described.items():
        logger.info("Post-processing of %s: %s", name, settings)
    detections, costs = _detect(experiment, network, samples, clusterings, threads)
    batch_size = experiment.training_config.batch_size_per_gpu
    wrapped = -len(samples) % batch_size
    evaluation = evaluate_detections(
        ground_truth(samples, experiment), detections, experiment, wrapped=wrapped
    )
    for name, count in evaluation.faces.items():
        if count and not evaluation.average_precision[name]:
            logger.warning(
                "%s: none of its %d objects is found: was the training long enough, are the labels "
                "right, is coverage_threshold too high?",
                name,
                count,
            )
    frames = np.arange(len(samples) + wrapped) % len(samples)
    placement = Placement(experiment.augmentation_config)
    in_images = [
        [(placement.to_image(boxes, item.width, item.height), scores) for boxes, scores in found]
        for item, found in zip(samples, detections, strict=True)
    ]
    return Result(
        evaluation=evaluation,
        average_precision_mode=spec_pb2.EvaluationConfig.AP_MODE.Name(
            experiment.evaluation_config.average_precision_mode
        ),
        detections=in_images,
        cost=float(np.mean(np.array(costs)[frames])),
        seconds=float(np.median(network.seconds)),
        model={
            "parameters": network.parameters,
            "macs": network.macs,
            "input": [3, network.height, network.width],
        },
        postprocessing=described,
        classes=classes,
    )


def _detect(
    experiment: spec_pb2.Experiment,
    network: Network,
    samples: Sequence[Sample],
    clusterings: Sequence[postprocess.Clustering],
    threads: int,
) -> tuple[list[list[postprocess.Detections]], list[float]]:
    """Return the detections and the cost of each sample."""
    detections: list[list[postprocess.Detections]] = []
    costs: list[float] = []
    batches = _batches(experiment, samples, threads)
    steps = -(-len(samples) // COMPUTE_BATCH)
    cost = _cost_of(experiment)
    for batch in progress(batches, steps, "batches", logger):
        bbox, cov = network(batch.images.numpy())
        costs += cost(bbox, cov, batch.targets)
        detections += postprocess.detections(
            bbox,
            cov,
            clusterings,
            width=network.width,
            height=network.height,
            **objectives.geometry(experiment),
        )
    # The last batch was filled up, so that all go through the network alike.
    return detections[: len(samples)], costs[: len(samples)]


def _batches(experiment: spec_pb2.Experiment, samples: Sequence[Sample], threads: int) -> Iterator:
    """Yield loader.Batch: images and targets, made ahead of time."""
    from detectnet_v2 import loader  # noqa: PLC0415 - see evaluate
    from detectnet_v2.augmentation import Augmenter  # noqa: PLC0415
    from detectnet_v2.image_cache import DecodedImages  # noqa: PLC0415

    config = experiment.augmentation_config
    size = config.preprocessing.output_image_width, config.preprocessing.output_image_height
    stretched = config.preprocessing.enable_auto_resize
    largest = max(sample.width for sample in samples), max(sample.height for sample in samples)
    maker = loader.BatchMaker(
        samples,
        DecodedImages([sample.image for sample in samples], size if stretched else None),
        augmenter=Augmenter(config, canvas=size if stretched else largest),
        ellipses=loader.ellipse_configs(experiment),
        geometry=objectives.geometry(experiment),
        stretched=stretched,
    )
    places = np.arange(len(samples) + -len(samples) % COMPUTE_BATCH) % len(samples)
    work = ((part,) for part in places.reshape(-1, COMPUTE_BATCH))
    with loader.Prefetcher(maker.validation, work, workers=max(threads, 1)) as batches:
        yield from batches


def _cost_of(experiment: spec_pb2.Experiment):
    """Return a function of bbox, cov and targets of a batch: the cost of each image."""
    import torch  # noqa: PLC0415 - see evaluate

    from detectnet_v2 import cost  # noqa: PLC0415

    function = cost.from_spec(experiment)

    def costs(bbox: np.ndarray, cov: np.ndarray, targets: cost.Targets) -> list[float]:
        result = []
        for image in range(len(cov)):
            one = slice(image, image + 1)
            target = cost.Targets(*(value[one] for value in vars(targets).values()))
            parts = function.costs(torch.from_numpy(bbox[one]), torch.from_numpy(cov[one]), target)
            result.append(function.total(parts).item())
        return result

    return costs
