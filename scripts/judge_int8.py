"""Measures what INT8 costs a model: fold 0 through nvinfer's steps in FP32 and in simulated INT8.

The simulation stores what an INT8 engine stores in eight bits, by exactly the scales of the
calibration cache; everything else is the config that every device gets.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deepstream.detector import Detector
from deepstream.evaluation import Scorer, detect, figures, load_samples
from deepstream.int8 import judge, sentence, simulated
from deepstream.job import reported, single, write_json
from ds_config import write_configs
from verify import read_release


def judge_int8(
    onnx: str | Path,
    calibration: str | Path,
    *,
    spec: str | Path,
    clustering: str | Path,
    templates: str | Path,
    classes: Sequence[str],
    max_int8_drop: float,
) -> dict[str, Any]:
    """Return what int8.json holds.

    Args:
        onnx: the exported model.
        calibration: its calibration cache, for whichever TensorRT.
        spec: evaluation spec whose validation samples are compared.
        clustering: clustering.json.
        templates: folder of the DeepStream configs' templates.
        classes: names in channel order.
        max_int8_drop: points of mAP that INT8 may lose.

    Raises:
        DeepStreamError, DetectNetError: for files that cannot be used.
    """
    experiment, samples = load_samples(Path(spec))
    score = Scorer(experiment, samples)
    found = {}
    with TemporaryDirectory(prefix="int8-") as folder:
        write_configs(
            folder,
            device="local",
            settings=None,
            model="model",
            engine="gpu",
            classes=list(classes),
            onnx=onnx,
            clustering=clustering,
            templates=templates,
        )
        fp32 = read_release(Path(folder))
        configs = {"fp32": fp32, "int8": simulated(fp32, Path(calibration), Path(folder))}
        for precision, config in configs.items():
            found[precision] = figures(score(detect(Detector(config, threads=1), samples)))
    return judge(found["fp32"], found["int8"], max_drop=max_int8_drop, images=len(samples))


def table(result: Mapping[str, Any]) -> str:
    """Lay out both precisions, for the log."""
    verdict = "stays INT8" if result["passed"] else "FP16 for the devices that ask for INT8"
    lines = [f"INT8 {sentence(result)}: {verdict}", f"{'':12}{'FP32':>8}{'INT8':>8}"]
    rows = [("mAP", result["fp32"]["mAP"], result["int8"]["mAP"])]
    rows += [
        (name, value, result["int8"]["average_precision"][name])
        for name, value in result["fp32"]["average_precision"].items()
    ]
    return "\n".join([*lines, *(f"{name:12}{a:8.2f}{b:8.2f}" for name, a, b in rows)])


if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        judged = judge_int8(
            single(snakemake.input.onnx),
            single(snakemake.input.calibration),
            spec=single(snakemake.input.spec),
            clustering=single(snakemake.input.clustering),
            templates=snakemake.params.templates,
            classes=snakemake.params.classes,
            max_int8_drop=snakemake.params.max_int8_drop,
        )
        job_log.info("%s", table(judged))
        write_json(judged, snakemake.output[0])
