"""Renders the DeepStream configs of a device, model and engine, and lays out the release folder."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepstream.devices import BENCHMARK_CLIP, BENCHMARK_CLIP_SIZE, resolve
from deepstream.errors import DeepStreamError
from deepstream.int8 import check_cache, read_judgement, settle_precision
from deepstream.job import reported, single
from deepstream.render import Video, read_model, render, write_release
from deepstream.sources import video_size

log = logging.getLogger("deepstream")


def write_configs(
    folder: str | Path,
    *,
    device: str,
    settings: Mapping[str, Any] | None,
    model: str,
    engine: str,
    classes: list[str],
    onnx: str | Path,
    clustering: str | Path,
    templates: str | Path,
    etlt: str | Path | None = None,
    calibration: str | Path | None = None,
    judgement: str | Path | None = None,
    clip: str | Path | None = None,
) -> list[Path]:
    """Write one release folder and return its files.

    Args:
        device: name under `deploy.devices`, or "local" for the desk.
        settings: that section; besides the board's facts it may have `streams`, `perf_interval_s`,
            `width` and `height` of the muxed frames, `clip` (a path on the device), `tracker` and
            `cameras`.
        model: name of the model, for titles.
        engine: gpu, dla0 or dla1.
        etlt: the model to deploy instead of the ONNX, whose network it holds.
        calibration: the INT8 calibration cache, needed for that precision only.
        judgement: int8.json; where INT8 loses too much, the device gets FP16.
        clip: a video that becomes part of the release; without it the configs name `clip` of the
            settings, which must then be on the device.

    Raises:
        DeepStreamError: the device cannot run what is asked for.
        DetectNetError: the calibration cache is damaged or another network's.
    """
    settings = dict(settings or {})
    resolved = resolve(device, settings)
    shipped = Path(etlt or onnx)
    files = {f"model{shipped.suffix}": shipped}
    precision, note = settle_precision(
        resolved, read_judgement(Path(judgement)) if judgement else None
    )
    if note:
        log.warning("%s, %s-%s: %s", device, model, engine, note)
    cache = Path(calibration) if precision == "int8" and calibration else None
    if cache:
        check_cache(cache, resolved, Path(onnx))
        files[cache.name] = cache
    uri, size = _clip(settings, clip, files)
    texts = render(
        resolved,
        engine=engine,
        model=read_model(Path(onnx), model, shipped=f"model{shipped.suffix}"),
        classes=list(classes),
        clustering=_read_json(Path(clustering)),
        precision=precision,
        precision_note=note,
        calibration=cache.name if cache else None,
        templates=Path(templates),
        video=Video(
            clip=uri,
            width=settings.get("width") or size[0],
            height=settings.get("height") or size[1],
            streams=settings.get("streams") or 1,
            perf_interval_s=settings.get("perf_interval_s") or (1 if device == "local" else 5),
            tracker=bool(settings.get("tracker")),
            cameras=settings.get("cameras") or {},
        ),
    )
    write_release(Path(folder), texts, files)
    return [Path(folder) / name for name in (*texts, *files)]


def _clip(settings, clip, files):
    """URI and size of the video; a clip that is given is added to the files to copy."""
    if clip is None:
        return f"file://{settings.get('clip') or BENCHMARK_CLIP}", BENCHMARK_CLIP_SIZE
    clip = Path(clip)
    files[f"clip{clip.suffix}"] = clip
    return f"file://clip{clip.suffix}", video_size(clip)


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeepStreamError(f"{path}: not a clustering.json: {error}") from error


if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        written = write_configs(
            Path(snakemake.output[0]).parent,
            device=snakemake.wildcards.device,
            settings=snakemake.params.settings,
            model=snakemake.wildcards.model,
            engine=snakemake.wildcards.engine,
            classes=snakemake.params.classes,
            onnx=single(snakemake.input.onnx),
            clustering=single(snakemake.input.clustering),
            templates=snakemake.params.templates,
            etlt=single(snakemake.input.get("etlt")),
            calibration=single(snakemake.input.get("calibration")),
            judgement=single(snakemake.input.get("int8")),
            clip=single(snakemake.input.get("clip")),
        )
        job_log.info("%s", "\n".join(map(str, written)))
