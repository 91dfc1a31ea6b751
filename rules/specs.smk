"""What the templates of the specs are filled with."""

from detectnet_v2.options import EVALUATION_OPTIONS, SPEED_OPTIONS


def spec_classes(training):
    """What the spec templates say of each class, in channel order."""
    keys = ("class_weight", "bbox_weight_target", "cov_radius")
    values = {key: per_class(training[key], CLASSES) for key in keys}
    return [
        {"name": name} | {key: values[key][name] for key in keys} for name in CLASSES
    ]


def figure_settings():
    """What a spec says of evaluation: all that determines a trained model's figures."""
    return config["evaluate"] | {
        "dbscan_min_samples": TOOLKIT.min_samples(
            config["evaluate"]["dbscan_min_samples"]
        ),
        "dbscan_eps": per_class(config["evaluate"]["dbscan_eps"], CLASSES),
    }


def evaluation_settings(training):
    """What a spec says of evaluation and of checkpoints: none of it changes the trained weights."""
    return figure_settings() | {
        "validation": training["validation"],
        "checkpoint_interval": training["checkpoint_interval"],
    }


def inference_settings():
    """What the inference spec says of clusters: as evaluation, or the recipe's.

    NVIDIA's evaluation prints no curve that a confidence could be read from.
    """
    if TOOLKIT.is_native:
        return figure_settings()
    settings = config["inference"]
    return settings | {
        "dbscan_eps": per_class(settings["dbscan_eps"], CLASSES),
        "dbscan_min_samples": TOOLKIT.min_samples(settings["dbscan_min_samples"]),
    }


def weight_settings(training):
    """What a spec says of training: all that determines the trained weights.

    Of the native options those that do; none under another toolkit, which reads none of them.
    """
    other = ("validation", "checkpoint_interval", "native", "distill")
    settings = {key: value for key, value in training.items() if key not in other}
    if TOOLKIT.is_native:
        settings["native"] = without(
            training["native"], SPEED_OPTIONS + EVALUATION_OPTIONS
        )
        if "distill" in training:
            settings["distill"] = training["distill"]
    return settings


def without(options, names):
    """The options but those of these names."""
    return {key: value for key, value in options.items() if key not in names}


def native_options(training, teacher=()):
    """The native toolkit's section of a spec; empty under every other toolkit."""
    if not TOOLKIT.is_native:
        return {}
    options = training["native"] | {"cache_directory": in_results("<results>/cache")}
    for path in teacher:
        options["distillation"] = training["distill"] | {
            "teacher_model_file": in_results(path)
        }
    return options


def teacher_file():
    """The model that retraining also learns from, if it does."""
    is_distilled = TOOLKIT.is_native and RETRAIN.get("distill", {}).get("weight", 0) > 0
    return [f"<results>/unpruned/weights/{MODEL}"] if is_distilled else []


def data_source(subset="fold0"):
    """The spec's data: folds of the train split, and the val split where it is what is evaluated."""
    results = config["results_dir"]

    def source(split):
        return {
            "tfrecords": f"{results}/tfrecords/{split}",
            "images": f"{results}/kitti/{split}",
        }

    return source("train") | {"validation": source("val") if subset == "val" else None}


def network():
    """The network's input size, pixels."""
    return {"width": config["image_width"], "height": config["image_height"]}


# Activations that a training keeps, their gradients and work areas, for each pixel of its input. What
# float32 training saves alone was measured as 325, 472, 703 and 1866 bytes.
BYTES_PER_PIXEL = {10: 600, 18: 800, 34: 1200, 50: 3200}


def training_memory_mb(training, processes=1):
    """Memory to reserve for a training, MB: a fixed part, and the activations of a batch, for each
    process. An estimate on the safe side.
    """
    pixels = training["batch_size"] * config["image_width"] * config["image_height"]
    activations = pixels * BYTES_PER_PIXEL[training["num_layers"]]
    return processes * (1500 + round(activations / 1e6))


def pretrained_suffix(source):
    """Which kind of weights a section `pretrained` names; NGC's backbones are Keras HDF5."""
    if source["source"] == "ngc" or needs_codec(source):
        return ".hdf5"
    return Path(source.get("path") or source["url"]).suffix


def needs_codec(source):
    """Whether first weights are a .tlt that the native toolkit cannot read as it is."""
    is_encrypted = Path(source.get("path", "")).suffix == ".tlt"
    return TOOLKIT.is_native and source["source"] == "file" and is_encrypted


def pretrained_file():
    """Where the rule `pretrained` puts the backbone's first weights; nothing without any."""
    source = TRAIN["pretrained"]
    if source["source"] == "none":
        return []
    return [f"<results>/pretrained/weights{pretrained_suffix(source)}"]


def first_weights(wildcards):
    """No file: stops the plan where the file of first weights is missing, and its copy too."""
    source = TRAIN["pretrained"]
    places = [Path(source.get("path", "")).expanduser()]
    places += [Path(in_results(path)) for path in pretrained_file()]
    if (
        source["source"] == "file"
        and not is_drawing()
        and not any(map(Path.is_file, places))
    ):
        sys.exit(
            f"train.pretrained.path: {source['path']} is no file; correct it, or take source: none"
        )
    return []


def pretrained_content():
    """Digest of a file of first weights, so that another one in its place is noticed.

    Where it is gone, its copy among the results tells what it was.
    """
    source = TRAIN["pretrained"]
    if source["source"] != "file":
        return None
    copies = [] if needs_codec(source) else pretrained_file()
    for path in (source["path"], *map(in_results, copies)):
        with suppress(OSError), Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return None
