"""Settings of NVIDIA's specs that `train` takes though they change nothing here, and why."""

from collections.abc import Iterator

from google.protobuf.message import Message

from detectnet_v2 import spec_pb2
from detectnet_v2.dataset import MINIMUM_SIZE

_AS_NVIDIA = "NVIDIA's toolkit ignores it as well"
_NO_SERVICE = "the course of the training goes to TensorBoard events, training.csv and status.json"
REASONS = {
    "dataset_config.dataloader_mode": "images are read as in MULTISOURCE",
    "augmentation_config.preprocessing.output_image_max": (
        "it limits the longer side where output_image_min is given"
    ),
    "augmentation_config.spatial_augmentation.vflip_probability": _AS_NVIDIA,
    "model_config.freeze_pretrained_layers": f"{_AS_NVIDIA}; name blocks in freeze_blocks",
    "model_config.allow_loaded_model_modification": "a loaded graph must have heads for the spec",
    "model_config.dropout_rate": f"a ResNet has none; {_AS_NVIDIA}",
    "model_config.activation": f"a ResNet has ReLUs; {_AS_NVIDIA}",
    "evaluation_config.early_stopping_patience_steps": (
        "early_stopping_annealing_schedule has patience_steps"
    ),
    "training_config.visualizer.num_images": "TensorBoard gets scalars only",
    "training_config.visualizer.infrequent_logging_frequency": "TensorBoard gets scalars only",
    "training_config.visualizer.wandb_config": _NO_SERVICE,
    "training_config.visualizer.clearml_config": _NO_SERVICE,
    "dataset_export_config": "dataset_convert makes the tfrecords",
}
"""Why a field has no effect, by its path in the spec."""


def settings_without_effect(experiment: spec_pb2.Experiment) -> Iterator[str]:
    """Yield a line for each setting that is given, other than zero, and has no effect."""
    for path, reason in REASONS.items():
        if _is_given(experiment, path):
            yield f"{path} has no effect: {reason}"
    size = experiment.augmentation_config.preprocessing
    for name, value in (
        ("min_bbox_width", size.min_bbox_width),
        ("min_bbox_height", size.min_bbox_height),
    ):
        if value > MINIMUM_SIZE:
            yield (
                f"augmentation_config.preprocessing.{name}: {value:g} has no effect: labels count "
                f"from {MINIMUM_SIZE:g} pixel on, as in NVIDIA's MULTISOURCE loader"
            )


def _is_given(message: Message, path: str) -> bool:
    *parents, last = path.split(".")
    for name in parents:
        message = getattr(message, name)
    return last in {field.name for field, _ in message.ListFields()}
