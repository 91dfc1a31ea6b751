"""What a device's release holds beside the configs: the open or the encrypted model, a cache."""

from deepstream.releases import version_order
from etlt.environment import check_start
from etlt.errors import EtltError

# Those whose release holds an .etlt: newer DeepStream takes the plain ONNX alone.
ETLT_DEVICES = [
    name
    for name, device in BOARDS.items()
    if config["export"]["etlt"]
    and TOOLKIT.export_suffix == ".onnx"
    and device.accepts_etlt
]
# TensorRT versions that need a calibration cache.
CALIBRATED = sorted(
    {device.tensorrt for device in BOARDS.values() if device.precision == "int8"},
    key=version_order,
)


def codec_for(device):
    """The codec's environment, where a device's release holds an .etlt."""
    return ["<results>/codec/environment.json"] if device in ETLT_DEVICES else []


def etlt_for(wildcards):
    """The .etlt, where a device's release holds one."""
    is_etlt = wildcards.device in ETLT_DEVICES
    return [f"<results>/export/{wildcards.model}/model.etlt"] if is_etlt else []


def asks_for_int8(device):
    """Whether the config gives a device INT8."""
    return device in BOARDS and BOARDS[device].precision == "int8"


def judgement_for(wildcards):
    """What INT8 costs the model, where the device asks for INT8."""
    is_int8 = asks_for_int8(wildcards.device)
    return [f"<results>/export/{wildcards.model}/int8.json"] if is_int8 else []


def calibration_for(wildcards):
    """The calibration cache for the device's TensorRT, where it asks for INT8."""
    if not asks_for_int8(wildcards.device):
        return []
    version = BOARDS[wildcards.device].tensorrt
    return [f"<results>/export/{wildcards.model}/calibration.trt{version}.bin"]


def check_etlt(jobs):
    """Stop a run that needs an .etlt and cannot have it, with one line, before its first job."""
    needed = [
        job
        for job in jobs
        if job.rule.name in ("codec", "etlt", "decrypt_model")
        or job.rule.name in ("ds_config_etlt", "verify", "push")
        and job.wildcards.device in ETLT_DEVICES
    ]
    if not needed:
        return
    results = Path(config["results_dir"])
    made = {Path(path) for job in needed for path in job.output}
    try:
        check_start(
            results / "codec/environment.json",
            licence_accepted=config["export"]["accept_nvidia_eff_licence"],
            named=config["export"]["codec_python"],
            models=[
                path for path in results.glob("export/*/model.etlt") if path not in made
            ],
        )
    except EtltError as error:
        sys.exit(f"error: {error}")
