"""Compares the rendered DeepStream configs with the toolkit on fold 0, under the same clustering.

One side is the toolkit's evaluation of its own model with NMS; the other reads the very files that
go to the device and takes the exported model through nvinfer's steps. A config that changes the
answer, by swapped sizes, wrong scaling or skipped clustering, shows as a loss of mAP.
"""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from deepstream import appconfig, inferconfig
from deepstream.clustering import overlaps
from deepstream.detector import Detector
from deepstream.errors import DeepStreamError
from deepstream.evaluation import Scorer, check_classes, detect, figures, load_samples
from deepstream.int8 import judge, read_judgement, sentence, simulated
from deepstream.job import reported, single, write_json
from deepstream.render import BENCHMARK, NETWORK_MODES, VIDEO
from detectnet_v2 import spec_pb2
from detectnet_v2.dataset import Sample, target_classes
from detectnet_v2.evaluate import evaluate
from detectnet_v2.postprocess import Detections
from etlt.codec import INTERPRETER_VARIABLE
from etlt.environment import Environment
from file_digest import sha256

log = logging.getLogger("deepstream")

PRECISIONS = {mode: name for name, mode in NETWORK_MODES.items()}
# Two boxes are the same when they overlap by this much and their confidence differs by no more.
SAME_IOU = 0.9
SAME_CONFIDENCE = 0.05
# Average precision hardly notices boxes that come after all true ones, such as the raw grid cells
# of skipped clustering; so boxes that one side has alone count as well.
MAX_SHARE_OF_BOXES_ALONE = 0.1


def verify(
    release: str | Path,
    *,
    model: str | Path,
    spec: str | Path,
    clustering: str | Path,
    max_parity_drop: float = 1.0,
    toolkit_metrics: str | Path | None = None,
    judgement: str | Path | None = None,
) -> dict[str, Any]:
    """Run fold 0 through a release folder and through the toolkit; return what parity.json holds.

    Args:
        release: rendered folder with the app configs, the nvinfer config, labels and the model.
        model: the toolkit's own model file (.hdf5 or .onnx).
        spec: evaluation spec whose validation samples are compared.
        clustering: clustering.json: the numbers that both sides should use.
        max_parity_drop: points of mAP that the release may lose. `passed` tells whether it stays
            within that, and no more than MAX_SHARE_OF_BOXES_ALONE of the boxes have no counterpart.
        toolkit_metrics: metrics.json of the toolkit's evaluation with its own clustering (DBSCAN),
            for the gap that is reported and judged by nobody.
        judgement: int8.json, for a device that asks for INT8.

    Raises:
        DeepStreamError: a config cannot be run, or its labels are not the model's classes.
        DetectNetError: the model, the spec or its data cannot be used.
    """
    release = Path(release)
    experiment, samples = load_samples(Path(spec))
    config = read_release(release)
    check_classes(config, experiment)
    numbers = json.loads(Path(clustering).read_text(encoding="utf-8"))["classes"]
    desk = detect(Detector(config, threads=1), samples)
    score = Scorer(experiment, samples)
    desk_figures = figures(score(desk))
    reference = evaluate(with_nms(experiment, numbers), Path(model), samples)
    toolkit_figures = figures(reference.evaluation)
    drop = toolkit_figures["mAP"] - desk_figures["mAP"]
    limits = [numbers[name].get("topk", -1) for name in target_classes(experiment)]
    agreed = agreement(strongest(reference.detections, limits), desk, samples)
    result = {
        "release": release.name,
        "model_sha256": sha256(config.model),
        "images": len(samples),
        "toolkit": toolkit_figures,
        "deepstream": desk_figures,
        "drop": round(drop, 4),
        "max_parity_drop": max_parity_drop,
        "passed": bool(
            drop <= max_parity_drop and agreed["share_of_boxes_alone"] <= MAX_SHARE_OF_BOXES_ALONE
        ),
        "agreement": agreed,
        "clustering": {"algorithm": "NMS", "classes": numbers},
    }
    if toolkit_metrics is not None:
        own = json.loads(Path(toolkit_metrics).read_text(encoding="utf-8"))
        result["toolkit_own_clustering"] = {
            "mAP": own["mAP"],
            "average_precision": own["average_precision"],
            "gap": round(own["mAP"] - desk_figures["mAP"], 4),
        }
    if judgement is not None:
        result["int8"] = _int8(
            config, read_judgement(Path(judgement)), desk_figures, score, samples
        )
        result["passed"] = result["passed"] and _is_as_judged(result["int8"])
    return result


def _int8(config, judgement, fp32, score, samples):
    """What INT8 costs: by the release's own cache or, where it has FP16 instead, as judged."""
    precision = PRECISIONS[config.network_mode]
    if precision != "int8":
        return {**judgement, "precision": precision}
    if config.calibration is None:
        raise DeepStreamError(f"{config.path}: network-mode=1 without a readable int8-calib-file")
    with TemporaryDirectory(prefix="int8-") as folder:
        detector = Detector(simulated(config, config.calibration, Path(folder)), threads=1)
        found = figures(score(detect(detector, samples)))
    limit = judgement["max_int8_drop"]
    return {
        **judge(fp32, found, max_drop=limit, images=len(samples)),
        "precision": precision,
        "calibration": config.calibration.name,
    }


def _is_as_judged(int8: dict[str, Any]) -> bool:
    """Whether a release has INT8 exactly where it passes."""
    return int8["passed"] == (int8["precision"] == "int8")


def read_release(release: Path) -> inferconfig.InferConfig:
    """Read a release as deepstream-app would, and return its detector's config.

    Raises DeepStreamError when an app config cannot run here or names different detectors.
    """
    configs = []
    for name in (BENCHMARK, VIDEO):
        gie = appconfig.load(release / name).gie
        if gie is None:
            raise DeepStreamError(f"{release / name}: [primary-gie] is not enabled")
        configs.append(inferconfig.load(gie.config_file, overrides=gie.overrides))
    if configs[0] != configs[1]:
        raise DeepStreamError(f"{release}: {BENCHMARK} and {VIDEO} run different detectors")
    return configs[0]


def with_nms(
    experiment: spec_pb2.Experiment, numbers: dict[str, dict[str, float]]
) -> spec_pb2.Experiment:
    """Return the spec with the toolkit's NMS set to nvinfer's numbers, and NVIDIA's slips off."""
    changed = spec_pb2.Experiment()
    changed.CopyFrom(experiment)
    changed.native.postprocessing = spec_pb2.NativeConfig.CORRECTED
    for name in target_classes(experiment):
        if name not in numbers:
            raise DeepStreamError(f"clustering.json: no entry for class {name!r}")
        config = changed.postprocessing_config.target_class_config[name].clustering_config
        config.clustering_algorithm = spec_pb2.ClusteringConfig.NMS
        config.coverage_threshold = numbers[name]["pre-cluster-threshold"]
        config.nms_iou_threshold = numbers[name]["nms-iou-threshold"]
        config.nms_confidence_threshold = numbers[name]["post-cluster-threshold"]
    return changed


def strongest(
    found: Sequence[Sequence[Detections]], limits: Sequence[int]
) -> list[list[Detections]]:
    """Return nvinfer's topk of each image and class, which the toolkit lacks; -1 keeps all.

    Args:
        found: detections of each image and class, best first.
        limits: of each class.
    """
    ends = [None if limit < 0 else limit for limit in limits]
    return [
        [(boxes[:end], scores[:end]) for (boxes, scores), end in zip(image, ends, strict=True)]
        for image in found
    ]


def agreement(
    toolkit: Sequence[Sequence[Detections]],
    desk: Sequence[Sequence[Detections]],
    samples: Sequence[Sample],
) -> dict[str, Any]:
    """Compare two sets of detections box by box and image by image.

    Boxes are paired within image and class, best overlap first; a pair agrees with an IoU of
    SAME_IOU or more and a confidence within SAME_CONFIDENCE. An image agrees when all its boxes do.
    """
    pairs: list[tuple[float, float]] = []
    only_toolkit = only_desk = agreeing = 0
    worst: list[tuple[int, str]] = []
    for sample, ours, theirs in zip(samples, toolkit, desk, strict=True):
        disagreements = 0
        for mine, other in zip(ours, theirs, strict=True):
            matched = _pair(mine, other)
            same = sum(
                iou >= SAME_IOU and difference <= SAME_CONFIDENCE for iou, difference in matched
            )
            only_toolkit += len(mine[0]) - len(matched)
            only_desk += len(other[0]) - len(matched)
            disagreements += len(mine[0]) + len(other[0]) - len(matched) - same
            pairs += matched
        agreeing += disagreements == 0
        if disagreements:
            worst.append((disagreements, sample.frame_id))
    ious, differences = np.array(pairs).reshape(-1, 2).T
    alone = only_toolkit + only_desk
    return {
        "images_that_agree": agreeing,
        "share_of_images": round(agreeing / len(samples), 4),
        "pairs": len(pairs),
        "only_toolkit": only_toolkit,
        "only_deepstream": only_desk,
        "share_of_boxes_alone": round(alone / max(len(pairs) + alone, 1), 4),
        "mean_iou": round(float(ious.mean()), 4) if len(pairs) else None,
        "mean_confidence_difference": round(float(differences.mean()), 4) if len(pairs) else None,
        "worst_images": [frame for _, frame in sorted(worst, reverse=True)[:10]],
    }


def _pair(ours: Detections, theirs: Detections) -> list[tuple[float, float]]:
    """Pair boxes one to one by an IoU of at least one half: (IoU, difference of confidence)."""
    (boxes, confidence), (others, other_confidence) = ours, theirs
    if not len(boxes) or not len(others):
        return []
    iou = overlaps(np.asarray(boxes, np.float32), np.asarray(others, np.float32))
    pairs, taken, other_taken = [], set(), set()
    for place in np.argsort(-iou, axis=None):
        first, second = divmod(int(place), len(others))
        if iou[first, second] < 0.5:
            break
        if first in taken or second in other_taken:
            continue
        taken.add(first)
        other_taken.add(second)
        difference = abs(float(confidence[first]) - float(other_confidence[second]))
        pairs.append((float(iou[first, second]), difference))
    return pairs


def table(result: dict[str, Any]) -> str:
    """Lay out both sides, class by class, for the log and for the message of a failure."""
    ours, theirs = result["toolkit"], result["deepstream"]
    rows = [("mAP", ours["mAP"], theirs["mAP"])]
    rows += [
        (f"AP {name}", value, theirs["average_precision"][name])
        for name, value in ours["average_precision"].items()
    ]
    lines = [
        f"{result['release']}: {result['images']} images of fold 0, NMS on both sides",
        f"{'':<16}{'toolkit':>10}{'DeepStream':>12}{'drop':>8}",
    ]
    lines += [f"{name:<16}{a:>10.2f}{b:>12.2f}{a - b:>8.2f}" for name, a, b in rows]
    same = result["agreement"]
    lines.append(
        f"{100 * same['share_of_images']:.1f} % of the images agree box by box; "
        f"{same['only_toolkit']} boxes only of the toolkit, "
        f"{same['only_deepstream']} only of DeepStream"
    )
    if own := result.get("toolkit_own_clustering"):
        lines.append(
            f"toolkit with its own clustering: mAP {own['mAP']:.2f}, {own['gap']:+.2f} points"
        )
    if int8 := result.get("int8"):
        lines.append(f"INT8 {sentence(int8)}; the release has {int8['precision'].upper()}")
    return "\n".join(lines)


def check(result: dict[str, Any]) -> None:
    """Raise DeepStreamError when the release loses mAP, shows other boxes, or is not as judged."""
    if result["passed"]:
        return
    reasons = []
    if result["drop"] > result["max_parity_drop"]:
        reasons.append(
            f"lose {result['drop']:.2f} points of mAP, export.max_parity_drop allows "
            f"{result['max_parity_drop']:g}"
        )
    alone = result["agreement"]["share_of_boxes_alone"]
    if alone > MAX_SHARE_OF_BOXES_ALONE:
        reasons.append(
            f"have {result['agreement']['only_deepstream']} boxes that the toolkit has not and "
            f"lack {result['agreement']['only_toolkit']} of its ({100 * alone:.0f} % of all, "
            f"{100 * MAX_SHARE_OF_BOXES_ALONE:.0f} % allowed)"
        )
    if (int8 := result.get("int8")) and not _is_as_judged(int8):
        reasons.append(f"have {int8['precision'].upper()}, but INT8 {sentence(int8)}")
    told = " and ".join(reasons)
    raise DeepStreamError(f"{result['release']}: the rendered configs {told}")


def keep_or_refuse(result: dict[str, Any], output: Path, log_file: Path) -> None:
    """Write parity.json, or parity.failed.json and raise DeepStreamError where parity failed.

    The figures of a failure lie beside the output that they must not pass for.
    """
    failed = output.with_name("parity.failed.json")
    try:
        check(result)
    except DeepStreamError as error:
        write_json(result, failed)
        raise DeepStreamError(f"{error}; table in {log_file}, all figures in {failed}") from error
    failed.unlink(missing_ok=True)
    write_json(result, output)


if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        if codec := single(snakemake.input.get("codec")):
            os.environ[INTERPRETER_VARIABLE] = str(Environment.read(Path(codec)).python)
        parity = verify(
            Path(single(snakemake.input.config)).parent,
            model=single(snakemake.input.model),
            spec=single(snakemake.input.spec),
            clustering=single(snakemake.input.clustering),
            max_parity_drop=snakemake.params.max_parity_drop,
            toolkit_metrics=single(snakemake.input.get("metrics")),
            judgement=single(snakemake.input.get("int8")),
        )
        job_log.info("%s", table(parity))
        keep_or_refuse(parity, Path(snakemake.output[0]), Path(snakemake.log[0]))
