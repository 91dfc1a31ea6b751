"""Spec files: protobuf text, in the dialect of TLT 2.0 or of TAO 5, read and checked.

What NVIDIA's toolkits refuse is refused here as well, with the same ranges; each problem is one
line that names the file, the field and the value.
"""

import difflib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from google.protobuf import descriptor_pool, text_format
from google.protobuf.message import Message

from detectnet_v2 import spec_pb2
from detectnet_v2.errors import DetectNetError

EXPERIMENT_MESSAGES = (
    "model_config",
    "training_config",
    "evaluation_config",
    "cost_function_config",
    "augmentation_config",
    "bbox_rasterizer_config",
    "postprocessing_config",
    "dataset_config",
)
INFERENCE_MESSAGES = ("inferencer_config", "bbox_handler_config")


class Check(NamedTuple):
    """What a value must be, in words and as a test."""

    rule: str
    holds: Callable[[object], bool]


POSITIVE = Check("must be > 0", lambda value: value > 0)
NOT_NEGATIVE = Check("must be >= 0", lambda value: value >= 0)
UNIT = Check("must be in [0, 1]", lambda value: 0 <= value <= 1)
SHARE = Check("must be in ]0, 1]", lambda value: 0 < value <= 1)
BELOW_ONE = Check("must be in [0, 1[", lambda value: 0 <= value < 1)
INSIDE_UNIT = Check("must be in ]0, 1[", lambda value: 0 < value < 1)
GRID = Check("must be a multiple of 16 above 0", lambda value: value > 0 and value % 16 == 0)
NAMED = Check("must be given", bool)
RGB = Check("must be 3: this toolkit works on RGB images", lambda value: value in (0, 3))
LAYERS = Check("must be 10, 18, 34 or 50", lambda value: value in (0, 10, 18, 34, 50))
RESNET = Check('must be "resnet": this toolkit has no other', lambda value: value in ("", "resnet"))
PRECISION = Check(
    "must be auto, float32, bfloat16 or float16",
    lambda value: value in ("", "auto", "float32", "bfloat16", "float16"),
)
EVALUATION_PRECISION = Check(
    "must be float32 or bfloat16", lambda value: value in ("", "float32", "bfloat16")
)
PARTITION = Check('must be "random" or "sequence"', lambda value: value in ("random", "sequence"))
PERCENT = Check("must be in [0, 100]", lambda value: 0 <= value <= 100)

# By message and field. A field that is not set counts as zero, as it does for NVIDIA.
CHECKS = {
    "KITTIConfig": {
        "partition_mode": PARTITION,
        "val_split": PERCENT,
        "root_directory_path": NAMED,
        "image_dir_name": NAMED,
        "label_dir_name": NAMED,
    },
    "DataSource": {
        "tfrecords_path": NAMED,
        "image_directory_path": NAMED,
        "source_weight": NOT_NEGATIVE,
    },
    "AugmentationConfig.Preprocessing": {
        "output_image_width": GRID,
        "output_image_height": GRID,
        "output_image_channel": RGB,
        "min_bbox_width": NOT_NEGATIVE,
        "min_bbox_height": NOT_NEGATIVE,
        "scale_width": NOT_NEGATIVE,
        "scale_height": NOT_NEGATIVE,
    },
    "AugmentationConfig.SpatialAugmentation": {
        "hflip_probability": UNIT,
        "vflip_probability": UNIT,
        "zoom_min": POSITIVE,
        "zoom_max": POSITIVE,
        "translate_max_x": NOT_NEGATIVE,
        "translate_max_y": NOT_NEGATIVE,
        "rotate_probability": UNIT,
    },
    "AugmentationConfig.ColorAugmentation": {
        "color_shift_stddev": UNIT,
        "hue_rotation_max": NOT_NEGATIVE,
        "saturation_shift_max": UNIT,
        "contrast_scale_max": UNIT,
        "contrast_center": UNIT,
    },
    "ClusteringConfig": {
        "coverage_threshold": UNIT,
        "minimum_bounding_box_height": NOT_NEGATIVE,
        "dbscan_eps": UNIT,
        "dbscan_min_samples": UNIT,
        "neighborhood_size": UNIT,
        "dbscan_confidence_threshold": UNIT,
        "nms_iou_threshold": UNIT,
        "nms_confidence_threshold": UNIT,
    },
    "ConfidenceConfig": {"confidence_threshold": UNIT},
    "ModelConfig": {"arch": RESNET, "num_layers": LAYERS, "dropout_rate": BELOW_ONE},
    "ModelConfig.BboxObjective": {"scale": POSITIVE, "offset": NOT_NEGATIVE},
    "EvaluationConfig": {
        "validation_period_during_training": POSITIVE,
        "first_validation_epoch": POSITIVE,
    },
    "EvaluationConfig.EvaluationBoxConfig": {
        "minimum_height": NOT_NEGATIVE,
        "maximum_height": POSITIVE,
        "minimum_width": NOT_NEGATIVE,
        "maximum_width": POSITIVE,
    },
    "CostFunctionConfig": {
        "max_objective_weight": NOT_NEGATIVE,
        "min_objective_weight": NOT_NEGATIVE,
    },
    "CostFunctionConfig.TargetClass": {
        "name": NAMED,
        "class_weight": NOT_NEGATIVE,
        "coverage_foreground_weight": INSIDE_UNIT,
    },
    "CostFunctionConfig.TargetClass.Objective": {
        "name": NAMED,
        "initial_weight": NOT_NEGATIVE,
        "weight_target": NOT_NEGATIVE,
    },
    "SoftStartAnnealingScheduleConfig": {
        "min_learning_rate": POSITIVE,
        "max_learning_rate": POSITIVE,
        "soft_start": BELOW_ONE,
        "annealing": BELOW_ONE,
    },
    "EarlyStoppingAnnealingScheduleConfig": {
        "min_learning_rate": POSITIVE,
        "max_learning_rate": POSITIVE,
    },
    "RegularizerConfig": {"weight": NOT_NEGATIVE},
    "AdamOptimizerConfig": {"epsilon": POSITIVE, "beta1": BELOW_ONE, "beta2": BELOW_ONE},
    "CostScalingConfig": {
        "initial_exponent": POSITIVE,
        "increment": POSITIVE,
        "decrement": POSITIVE,
    },
    "TrainingConfig": {"batch_size_per_gpu": POSITIVE, "num_epochs": POSITIVE},
    "BboxRasterizerConfig": {"deadzone_radius": UNIT},
    "BboxRasterizerConfig.TargetClassConfig": {
        "cov_center_x": UNIT,
        "cov_center_y": UNIT,
        "cov_radius_x": UNIT,
        "cov_radius_y": UNIT,
        "bbox_min_radius": UNIT,
    },
    "NativeConfig": {
        "precision": PRECISION,
        "evaluation_precision": EVALUATION_PRECISION,
        "ema_decay": BELOW_ONE,
        "coverage_focal_gamma": NOT_NEGATIVE,
        "gradient_clip_norm": NOT_NEGATIVE,
        "batch_norm_momentum": BELOW_ONE,
        "weight_decay": NOT_NEGATIVE,
        "class_balance": UNIT,
    },
    "NativeConfig.InputScale": {"until": INSIDE_UNIT, "scale": SHARE},
    "NativeConfig.Augmentation": {
        "scale_min": NOT_NEGATIVE,
        "scale_max": NOT_NEGATIVE,
        "scale_probability": UNIT,
        "mosaic_probability": UNIT,
        "blur_probability": UNIT,
        "blur_sigma_max": NOT_NEGATIVE,
        "noise_stddev_max": UNIT,
        "grayscale_probability": UNIT,
        "mosaic_until": UNIT,
    },
    "NativeConfig.Distillation": {
        "teacher_model_file": NAMED,
        "weight": POSITIVE,
        "temperature": NOT_NEGATIVE,
    },
    "InferencerConfig": {
        "image_width": GRID,
        "image_height": GRID,
        "image_channels": RGB,
        "batch_size": NOT_NEGATIVE,
        "stride": NOT_NEGATIVE,
    },
    "BboxHandlerConfig": {"overlay_linewidth": NOT_NEGATIVE},
    "ClasswiseBboxHandlerConfig": {"confidence_threshold": NOT_NEGATIVE},
    "NativeInferenceConfig": {"evaluation_precision": EVALUATION_PRECISION},
}


def load_experiment(path: Path | str) -> spec_pb2.Experiment:
    """Return the spec of train, evaluate, prune and calibration_tensorfile.

    Raises:
        DetectNetError: the file is missing or no spec, lacks a message, or a value is out of range.
    """
    experiment = spec_pb2.Experiment()
    _parse(path, experiment)
    _require(path, experiment, EXPERIMENT_MESSAGES)
    _raise_all(path, [*_violations(experiment), *_experiment_gaps(experiment)])
    return experiment


def load_dataset_export(path: Path | str) -> spec_pb2.DatasetExportConfig:
    """Return the spec of dataset_convert; raises as load_experiment does."""
    config = spec_pb2.DatasetExportConfig()
    _parse(path, config)
    if config.HasField("coco_config"):
        raise DetectNetError(f"{path}: coco_config: this toolkit converts KITTI labels only")
    _require(path, config, ["kitti_config"])
    _raise_all(path, _violations(config))
    return config


def load_inference(path: Path | str) -> spec_pb2.Inference:
    """Return the spec of inference; raises as load_experiment does."""
    inference = spec_pb2.Inference()
    _parse(path, inference)
    _require(path, inference, INFERENCE_MESSAGES)
    problems = list(_violations(inference))
    if not inference.inferencer_config.target_classes:
        problems.append("inferencer_config.target_classes: must name the model's classes in order")
    _raise_all(path, problems)
    return inference


def _parse(path: Path | str, message: Message) -> None:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise DetectNetError(f"{path}: spec cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DetectNetError(f"{path}: spec is not UTF-8 text (byte {error.start})") from error
    try:
        text_format.Merge(text, message)
    except text_format.ParseError as error:
        what = _parse_problem(error)
        raise DetectNetError(f"{path}:{error.GetLine()}: {what}") from error


def _parse_problem(error: text_format.ParseError) -> str:
    """Return protobuf's message without the position and the quoted line, with a suggestion."""
    text = str(error).partition(" : ")[2] or str(error)
    marker = "' has no field named" if "' has no" in text else '" has no field named'
    if marker in text:
        type_name = text.partition('"')[2].partition('"')[0]
        field = text.rpartition('named "')[2].partition('"')[0]
        known = descriptor_pool.Default().FindMessageTypeByName(type_name).fields_by_name
        close = difflib.get_close_matches(field, known, n=1)
        hint = f', did you mean "{close[0]}"?' if close else ""
        return f'unknown field "{field}" in {type_name.rpartition(".")[2]}{hint}'
    quoted = text.rfind("': ")
    return text[quoted + 3 :] if text.startswith("'") and quoted > 0 else text


def _require(path: Path | str, message: Message, names) -> None:
    missing = [name for name in names if not message.HasField(name)]
    if missing:
        raise DetectNetError(f"{path}: missing {', '.join(missing)}")


def _raise_all(path: Path | str, problems) -> None:
    problems = [f"{path}: {problem}" for problem in problems]
    if problems:
        raise DetectNetError("\n".join(problems))


def _violations(message: Message, prefix: str = "") -> Iterator[str]:
    """Yield a line for every value out of range in a message and in all that it holds."""
    kind = message.DESCRIPTOR.full_name.removeprefix("detectnet_v2.")
    for field, check in CHECKS.get(kind, {}).items():
        value = getattr(message, field)
        if not check.holds(value):
            shown = f'"{value}"' if isinstance(value, str) else f"{value:.9g}"
            yield f"{prefix}{field}: {shown} {check.rule}"
    for name, child in _children(message):
        yield from _violations(child, f"{prefix}{name}.")


def _children(message: Message) -> Iterator[tuple[str, Message]]:
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in sorted(value):
                    yield f'{field.name}["{key}"]', value[key]
        elif field.is_repeated:
            for index, item in enumerate(value):
                yield f"{field.name}[{index}]", item
        else:
            yield field.name, value


def _experiment_gaps(experiment: spec_pb2.Experiment) -> Iterator[str]:
    """Yield a line for everything that a run would miss later."""
    dataset = experiment.dataset_config
    if not dataset.data_sources:
        yield "dataset_config.data_sources: at least one is needed"
    mapping = dataset.target_class_mapping
    if not mapping:
        yield "dataset_config.target_class_mapping: must have an entry for each class"
    for target in sorted(set(mapping.values()) - set(mapping)):
        # The rasteriser maps the mapped name once more; NVIDIA drops the objects without a word.
        yield (
            f'dataset_config.target_class_mapping: "{target}" is a value but no key, which would '
            f'drop all its objects: add {{ key: "{target}" value: "{target}" }}'
        )
    if not experiment.augmentation_config.HasField("preprocessing"):
        yield "augmentation_config.preprocessing: is missing"
    if side := experiment.augmentation_config.preprocessing.output_image_min:
        yield (
            f"augmentation_config.preprocessing.output_image_min: {side}: images scaled by their "
            f"shorter side are not supported; leave it away, output_image_width and _height count"
        )
    if not experiment.training_config.learning_rate.WhichOneof("schedule"):
        yield "training_config.learning_rate: a schedule is missing"
    if not experiment.training_config.optimizer.HasField("adam"):
        yield "training_config.optimizer.adam: is missing"
    cost = experiment.cost_function_config
    least, most = cost.min_objective_weight, cost.max_objective_weight
    if cost.enable_autoweighting and not (most > 0 and most >= least):
        # All objectives would get this one weight; none, when it is 0.
        yield (
            f"cost_function_config.max_objective_weight: {most:g} must be > 0 and at least "
            f"min_objective_weight {least:g} with enable_autoweighting"
        )
    yield from _class_gaps(experiment)


def _class_gaps(experiment: spec_pb2.Experiment) -> Iterator[str]:
    names = [target.name for target in experiment.cost_function_config.target_classes]
    if not names:
        yield "cost_function_config.target_classes: at least one is needed"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f'cost_function_config.target_classes: "{name}" is there twice'
    evaluation = experiment.evaluation_config
    tables = {
        "postprocessing_config.target_class_config": (
            experiment.postprocessing_config.target_class_config
        ),
        "evaluation_config.minimum_detection_ground_truth_overlap": (
            evaluation.minimum_detection_ground_truth_overlap
        ),
        "evaluation_config.evaluation_box_config": evaluation.evaluation_box_config,
        "bbox_rasterizer_config.target_class_config": (
            experiment.bbox_rasterizer_config.target_class_config
        ),
    }
    for table, entries in tables.items():
        for name in names:
            if name not in entries:
                yield f'{table}: has no entry for the class "{name}"'
