"""Validation during training: the cost and the average precision on held-out images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from detectnet_v2 import objectives, spec_pb2
from detectnet_v2.cost import CostFunction
from detectnet_v2.dataset import Sample, target_classes
from detectnet_v2.ground_truth import ground_truth
from detectnet_v2.loader import BatchMaker, Prefetcher
from detectnet_v2.metrics import evaluate_detections
from detectnet_v2.model import DetectNetV2
from detectnet_v2.postprocess import describe, detections, evaluation_clustering
from detectnet_v2.precision import Precision

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Validation:
    """Result: precisions in percent, by class and their mean."""

    cost: float
    mean_average_precision: float
    average_precision: dict[str, float]


class Validator:
    """Measures models on all of ``samples``, whose batches ``maker`` makes.

    The cost uses the weights that ``cost`` has at the time. NVIDIA's toolkit leaves out the last,
    partial batch and goes on there the next time; here every validation sees every image.
    """

    def __init__(
        self,
        experiment: spec_pb2.Experiment,
        samples: Sequence[Sample],
        maker: BatchMaker,
        precision: Precision,
        cost: CostFunction,
    ) -> None:
        self._experiment = experiment
        self._samples = samples
        self._maker = maker
        self._precision = precision
        self._cost = cost
        self._batch_size = experiment.training_config.batch_size_per_gpu
        self._truth = ground_truth(samples, experiment)
        self._clustering = evaluation_clustering(experiment)
        described = describe(self._clustering, target_classes(experiment))
        for name, settings in described.items():
            _LOG.info("Post-processing of %s: %s", name, settings)
        self._geometry = objectives.geometry(experiment)

    @torch.inference_mode()
    def run(self, model: DetectNetV2) -> Validation:
        """Measure ``model``, which is in evaluation mode."""
        device = self._precision.device
        count = len(self._samples)
        starts = range(0, count, self._batch_size)
        work = ((range(i, min(i + self._batch_size, count)),) for i in starts)
        cost = 0.0
        found = []
        with Prefetcher(self._maker.validation, work) as batches:
            for batch in batches:
                images = batch.images.to(device).permute(0, 3, 1, 2).float().div_(255)
                with self._precision.autocast():
                    bbox, cov = model(images)
                costs = self._cost.costs(bbox, cov, batch.targets.to(device))
                cost += self._cost.total(costs).item() * len(batch.indices)
                found += detections(
                    bbox.cpu().numpy(),
                    cov.cpu().numpy(),
                    self._clustering,
                    width=model.input_width,
                    height=model.input_height,
                    **self._geometry,
                )
        figures = evaluate_detections(self._truth, found, self._experiment, coco=False)
        return Validation(cost / count, figures.mean_average_precision, figures.average_precision)
