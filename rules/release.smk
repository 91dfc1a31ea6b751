"""What is rendered for a device and goes into its release: configs, models, calibration caches."""

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


def device_settings(device):
    """The config's section of a device."""
    return (
        config["deploy"]["local"]
        if device == "local"
        else config["deploy"]["devices"][device]
    )


def rendering_settings(device):
    """What of a device's section its DeepStream configs depend on: not how to reach or measure it."""
    elsewhere = (
        *("host", "user", "port", "identity_file", "jump_host", "folder"),
        *("nvpmodel", "jetson_clocks", "warm_up_s", "duration_s", "engines"),
        *(
            "engine_timeout_s",
            "stop_timeout_s",
            "connect_timeout_s",
            "reconnect_timeout_s",
        ),
        *("min_free_disk_mb", "min_free_memory_mb"),
    )
    return {
        key: value
        for key, value in device_settings(device).items()
        if key not in elsewhere
    }


def local_clip(wildcards):
    """The video that becomes part of the desk's release; a device has its own."""
    if wildcards.device != "local":
        return []
    return config["deploy"]["local"]["clip"] or "<results>/clip.mp4"


def drawn_clip_size():
    """Width x height of the video that is drawn where the config names none."""
    clip = config["deploy"]["local"]["drawn_clip"]
    return f"{clip['width']}x{clip['height']}"


def case_names(device):
    """`{model}-{engine}` for everything that is benchmarked on a device."""
    engines = device_settings(device).get("engines", ["gpu"])
    return [
        f"{model}-{engine}"
        for model in config["deploy"]["models"]
        for engine in engines
    ]


def cases(device, file):
    """A file of each rendered config folder of a device."""
    return [
        f"<results>/deepstream/{device}/{case}/{file}" for case in case_names(device)
    ]


def case_folders(device):
    """The rendered config folders of a device, by case."""
    return {
        case: f"{config['results_dir']}/deepstream/{device}/{case}"
        for case in case_names(device)
    }


def toolkit_metrics(wildcards):
    """The toolkit's own figures of an exported model."""
    folder = {"unpruned": "unpruned/evaluation/fold0", "chosen": "chosen"}[
        wildcards.model
    ]
    return f"<results>/{folder}/metrics.json"


def deployed_metrics_by_model():
    """The toolkit's own figures of each deployed model, by model."""
    folders = {"unpruned": "unpruned/evaluation/fold0", "chosen": "chosen"}
    return {
        model: in_results(f"<results>/{folders[model]}/metrics.json")
        for model in config["deploy"]["models"]
    }


def deployed_metrics(wildcards):
    """The toolkit's own figures of the deployed models, as an input."""
    return list(deployed_metrics_by_model().values())
