"""What a training is made of, from the spec: network, batches, device, number type."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from detectnet_v2 import curriculum, objectives, spec_pb2
from detectnet_v2.augmentation import Augmenter
from detectnet_v2.dataset import Sample, target_classes
from detectnet_v2.device import has_usable_gpu
from detectnet_v2.errors import DetectNetError
from detectnet_v2.image_cache import default_directory, open_images
from detectnet_v2.loader import BatchMaker, ellipse_configs
from detectnet_v2.model import DetectNetV2, freeze
from detectnet_v2.model_file import load_detector, load_pretrained
from detectnet_v2.precision import Precision, choose_precision

_LOG = logging.getLogger(__name__)


def check_supported(experiment: spec_pb2.Experiment) -> None:
    """Raise DetectNetError for a setting that would change the result and is not implemented."""
    if experiment.training_config.enable_qat:
        raise DetectNetError(
            "training_config.enable_qat: not supported by this toolkit; calibrate for INT8 instead"
        )
    if experiment.model_config.use_pooling:
        raise DetectNetError(
            "model_config.use_pooling: true is not supported by this toolkit: it ends in a 7 x 7 "
            "average pool, whose grid is too coarse to detect; leave it away"
        )


def build_model(experiment: spec_pb2.Experiment) -> DetectNetV2:
    """The network of ``model_config`` in training mode, new, pretrained or loaded whole.

    Raises DetectNetError when it cannot be built, or a loaded graph has another input size.
    """
    model = _network(experiment)
    momentum = experiment.native.batch_norm_momentum
    if momentum:
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1 - momentum
    return model.train()


def _network(experiment: spec_pb2.Experiment) -> DetectNetV2:
    config = experiment.model_config
    size = experiment.augmentation_config.preprocessing
    width, height = size.output_image_width, size.output_image_height
    classes = target_classes(experiment)
    pretrained = config.pretrained_model_file
    if config.load_graph:
        if not pretrained:
            raise DetectNetError("model_config.load_graph needs a pretrained_model_file")
        model = load_detector(pretrained, classes=classes)
        if (model.input_width, model.input_height) != (width, height):
            raise DetectNetError(
                f"{pretrained} takes {model.input_width} x {model.input_height} images, "
                f"augmentation_config.preprocessing makes {width} x {height}: set the model's size"
            )
        if config.freeze_blocks or config.freeze_bn:
            _LOG.warning("model_config: freezing has no effect with load_graph")
        return model
    model = DetectNetV2(
        config.num_layers or 18,
        len(classes),
        use_pooling=config.use_pooling,
        all_projections=config.all_projections,
        use_batch_norm=config.use_batch_norm,
        input_height=height,
        input_width=width,
        class_names=classes,
    )
    if pretrained:
        _LOG.info("%s", load_pretrained(model, pretrained))
    elif config.freeze_blocks:
        raise DetectNetError("model_config.freeze_blocks needs a pretrained_model_file")
    freeze(model, config.freeze_blocks, config.freeze_bn)
    return model


def batch_maker(
    experiment: spec_pb2.Experiment,
    samples: Sequence[Sample],
    *,
    digest: str,
    canvas: tuple[int, int],
    pin_memory: bool = False,
) -> BatchMaker:
    """Batches of ``samples`` from cached images; ``digest`` is the content digest of these.

    ``canvas`` is the width and height of the largest image of all sets.
    """
    config = experiment.augmentation_config
    size = config.preprocessing.output_image_width, config.preprocessing.output_image_height
    stretched = config.preprocessing.enable_auto_resize
    folder = experiment.native.cache_directory
    images = open_images(
        [sample.image for sample in samples],
        directory=Path(folder) if folder else default_directory(),
        digest=digest,
        size=size if stretched else None,
    )
    return BatchMaker(
        samples,
        images,
        augmenter=Augmenter(
            config, experiment.native.augmentation, canvas=size if stretched else canvas
        ),
        ellipses=ellipse_configs(experiment),
        seed=experiment.random_seed,
        geometry=objectives.geometry(experiment),
        stretched=stretched,
        curriculum=curriculum.from_spec(experiment),
        pin_memory=pin_memory,
    )


def largest_size(samples: Sequence[Sample]) -> tuple[int, int]:
    """Greatest width and greatest height among the images."""
    return max(sample.width for sample in samples), max(sample.height for sample in samples)


def training_device(rank: int) -> torch.device:
    """The GPU of this process, or the CPU where there is none; see ``has_usable_gpu``."""
    if not has_usable_gpu(tell=rank == 0):
        return torch.device("cpu")
    device = torch.device("cuda", rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
    return device


def agreed_precision(name: str, model: DetectNetV2, device: torch.device) -> Precision:
    """``choose_precision`` by the first process for all: a probe may turn out either way."""
    if not torch.distributed.is_initialized():
        return choose_precision(name, model, device)
    chosen = [None]
    if torch.distributed.get_rank() == 0:
        chosen = [choose_precision(name, model, device).name]
    torch.distributed.broadcast_object_list(chosen, src=0, device=device)
    return Precision(chosen[0], device)
