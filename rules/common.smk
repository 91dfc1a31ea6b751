"""Settings, paths and functions that the rules share."""

import os
import re
import shlex
import sys
import time
from functools import cache
from pathlib import Path

BASE = Path(workflow.basedir)
sys.path.insert(0, str(BASE / "scripts"))

from code_digest import code_digest
from configuration import ConfigError, check_config, merged, per_class, pruning_branches
from datasets.errors import missing_dataset_message
from datasets.fingerprint import fingerprint
from deepstream.devices import dla_core, lowest_opset, resolve
from deepstream.errors import DeepStreamError
from etlt.codec import KEY_VARIABLE
from toolkits.table import TOOLKITS

try:
    check_config(config, BASE / "config/config.schema.yaml")
    BOARDS = {
        name: resolve(name, settings)
        for name, settings in config["deploy"]["devices"].items()
    }
    for name, device in BOARDS.items():
        for engine in config["deploy"]["devices"][name]["engines"]:
            dla_core(device, engine, device.precision)
except (ConfigError, DeepStreamError) as error:
    sys.exit(f"config: {error}")

if not os.access(os.getcwd(), os.W_OK) and "--lint" not in sys.argv:
    # Snakemake makes a folder of its own here, for a plan too, and would fail with a traceback.
    sys.exit(
        f"{os.getcwd()} cannot be written: give this user the permission, or run in a folder of"
        f" your own with `--snakefile {BASE / 'Snakefile'}`"
    )

for dataset in config["datasets"].values():
    dataset["root"] = str(Path(config["data_root"], dataset["root"]).expanduser())

# Snakemake gives a job no more threads than --cores allows.
ALL_CORES = os.cpu_count() or 1
# A logger plugin (--logger) draws on the terminal itself: jobs then write lines instead of bars.
if workflow.logger_manager.settings.log_handler_settings:
    os.environ.update(TQDM_DISABLE="1")
# Specs name paths relative to the working directory; every DetectNet_v2 resolves them against this.
os.environ.update(DATA_BASE_PATH=os.getcwd())
CLASSES = config["classes"]
TOOLKIT = TOOLKITS[config["toolkit"]]
RUNNER = config["toolkit_runner"]
# How each pruned model is named in paths, and the flag that says how much of it goes.
PRUNING = pruning_branches(config["prune"])
THRESHOLDS = list(PRUNING)
TRAIN = config["train"]
RETRAIN = merged(config["train"], config["retrain"])
SPLITS = [
    split
    for split in ("train", "val")
    if any(split in dataset["splits"] for dataset in config["datasets"].values())
]
FOLDS = {"train": 2, "val": 1}
SUBSETS = {"fold0": "train"} | ({"val": "val"} if "val" in SPLITS else {})
# Every job below the conversion names these as an input, needed or not. Snakemake looks again only at
# jobs that hang on a checkpoint directly when that has run; the others would keep the verdict of the
# first plan and train again, even when a changed `category_limit` gave the same selection.
CONVERSION = [
    *(f"<results>/selection/{split}.csv" for split in SPLITS),
    *(
        f"<results>/kitti/{split}/{name}.manifest.csv"
        for split in SPLITS
        for name, dataset in config["datasets"].items()
        if split in dataset["splits"]
    ),
]
RUNS = ["unpruned", *(f"retrained/{threshold}" for threshold in THRESHOLDS)]
EXPORTED = config["export"]["models"]
DEVICES = list(config["deploy"]["devices"])
MODEL = f"model{TOOLKIT.model_suffix}"
# With NVIDIA's codec a .tlt becomes plain HDF5, which the native toolkit exports and verifies.
DECRYPTS = (
    TOOLKIT.export_suffix == ".etlt" and config["export"]["accept_nvidia_eff_licence"]
)
EXPORTER = TOOLKITS["native"] if DECRYPTS else TOOLKIT
MISSING_STAGES = {} if DECRYPTS else TOOLKIT.missing
# What evaluate and prune leave besides a model. NVIDIA's only print; rules/nvidia.smk reads that.
EVALUATION_FILES = {
    "metrics": "<results>/{run}/evaluation/{subset}/metrics.json",
    "curve": "<results>/{run}/evaluation/{subset}/precision_recall.csv",
    "detections": "<results>/{run}/evaluation/{subset}/detections.csv",
}
PRUNING_FILES = {"summary": "<results>/pruned/{threshold}/pruning.json"}
if not TOOLKIT.is_native:
    EVALUATION_FILES = {"text": "<results>/{run}/evaluation/{subset}/evaluate.txt"}
    PRUNING_FILES = {"text": "<results>/pruned/{threshold}/prune.txt"}


def template(name):
    """A template of specs/ or ds_configs/, relative to the working directory."""
    return os.path.relpath(BASE / name)


def datasets_of(split):
    """Names of the datasets that have the split, in config order."""
    return [
        name
        for name, dataset in config["datasets"].items()
        if split in dataset["splits"]
    ]


def in_results(path):
    """The path as it stands on disk, for params: Snakemake fills in <results> in files only."""
    return path.replace("<results>", config["results_dir"])


def raw_data(wildcards):
    """No file: stops the plan, with one line, where a dataset's folder is missing."""
    dataset = config["datasets"][wildcards.dataset]
    is_drawing = {"--rulegraph", "--dag", "--filegraph", "--d3dag"} & set(sys.argv)
    if not Path(dataset["root"]).is_dir() and not is_drawing:
        sys.exit(missing_dataset_message(wildcards.dataset, dataset))
    return []


@cache
def fingerprint_of(dataset, split):
    """Digest of the sizes and times of a dataset's raw files, so that a changed one is noticed."""
    return fingerprint(config["datasets"][dataset], split)


def raw_fingerprint(wildcards):
    """The digest of the job's own dataset."""
    return fingerprint_of(wildcards.dataset, wildcards.split)


def raw_fingerprints(wildcards):
    """The digests of all datasets of the job's split."""
    return [
        fingerprint_of(name, wildcards.split) for name in datasets_of(wildcards.split)
    ]


def image_folders(wildcards):
    """Each dataset's images folder, relative to its root: what output names leave out."""
    names = datasets_of(wildcards.split)
    return {
        name: config["datasets"][name]["splits"][wildcards.split]["images"]
        for name in names
    }


def fold_0_percent(split):
    """Share of a split's images in fold 0; the val split is not divided."""
    return config["tfrecords"]["val_split"] if split == "train" else 0


def indexes(wildcards):
    """The indexes of all datasets of a split."""
    return [
        f"<results>/index/{wildcards.split}/{name}.csv"
        for name in datasets_of(wildcards.split)
    ]


def manifests(wildcards):
    """What was converted, of all datasets of a split."""
    names = datasets_of(wildcards.split)
    return [f"<results>/kitti/{wildcards.split}/{name}.manifest.csv" for name in names]


def shards(split):
    """The tfrecords of a split, named as NVIDIA's converter names them."""
    number = config["tfrecords"]["num_shards"]
    return [
        f"<results>/tfrecords/{split}/kitti_trainval"
        f"-fold-{fold:03d}-of-002-shard-{shard:05d}-of-{number:05d}"
        for fold in range(FOLDS[split])
        for shard in range(number)
    ]


def spec_classes(training):
    """What the spec templates say of each class, in channel order."""
    keys = ("class_weight", "bbox_weight_target", "cov_radius")
    values = {key: per_class(training[key], CLASSES) for key in keys}
    return [
        {"name": name} | {key: values[key][name] for key in keys} for name in CLASSES
    ]


def evaluation_settings(training):
    """What a spec says of evaluation and of checkpoints: none of it changes the trained weights."""
    return config["evaluate"] | {
        "dbscan_min_samples": TOOLKIT.min_samples(
            config["evaluate"]["dbscan_min_samples"]
        ),
        "dbscan_eps": per_class(config["evaluate"]["dbscan_eps"], CLASSES),
        "validation": training["validation"],
        "checkpoint_interval": training["checkpoint_interval"],
    }


def inference_settings():
    """What the inference spec says of clusters: as evaluation, or the recipe's.

    NVIDIA's evaluation prints no curve that a confidence could be read from.
    """
    if TOOLKIT.is_native:
        return evaluation_settings(TRAIN)
    settings = config["inference"]
    return settings | {
        "dbscan_eps": per_class(settings["dbscan_eps"], CLASSES),
        "dbscan_min_samples": TOOLKIT.min_samples(settings["dbscan_min_samples"]),
    }


def weight_settings(training):
    """What a spec says of training: all that determines the trained weights."""
    watched = ("validation", "checkpoint_interval")
    return {key: value for key, value in training.items() if key not in watched}


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


def prune_flags():
    """Command line of the pruning settings that are the same for every threshold."""
    settings = config["prune"]
    return (
        f"-eq {settings['equalization']} -n {settings['normalizer']}"
        f" -pg {settings['granularity']} -nf {settings['min_filters']}"
    )


def network():
    """The network's input size, pixels."""
    return {"width": config["image_width"], "height": config["image_height"]}


def training_memory_mb(training):
    """Memory to reserve for a training, MB: a fixed part, and the activations of a batch.

    An estimate on the safe side; ResNet18 keeps some hundred bytes for each pixel of its input.
    """
    pixels = training["batch_size"] * config["image_width"] * config["image_height"]
    return 1500 + round(pixels * 800 / 1e6)


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


def model_to_prune(wildcards):
    """The unpruned model or, iteratively, the one retrained at the threshold before."""
    before = THRESHOLDS.index(wildcards.threshold) - 1
    iterative = config["prune"]["mode"] == "iterative" and before >= 0
    run = f"retrained/{THRESHOLDS[before]}" if iterative else "unpruned"
    return f"<results>/{run}/weights/{MODEL}"


def prunings(wildcards):
    """What each pruning on the way to a run's model told, of a toolkit whose models are opaque."""
    folder, _, threshold = wildcards.run.partition("/")
    if not threshold:
        return []
    last = THRESHOLDS.index(threshold)
    first = 0 if config["prune"]["mode"] == "iterative" else last
    return [f"<results>/pruned/{t}/pruning.json" for t in THRESHOLDS[first : last + 1]]


def exported_model(wildcards):
    """The model file that an export to ONNX starts from."""
    if DECRYPTS:
        return f"<results>/decrypted/{wildcards.model}.hdf5"
    return toolkit_model(wildcards)


def toolkit_model(wildcards):
    """The toolkit's own file of an exported model."""
    folder = {"unpruned": "unpruned/weights", "chosen": "chosen"}[wildcards.model]
    return f"<results>/{folder}/{MODEL}"


def export_opset():
    """The configured ONNX operator set, or the newest that every configured device reads."""
    lowest = lowest_opset(config["deploy"]["devices"])
    return min(config["export"]["opset"], lowest)


def opset_note():
    """Which ONNX operator set is exported, and why, for the log."""
    asked, given = config["export"]["opset"], export_opset()
    if asked == given:
        return f"ONNX opset {given}, as export.opset says"
    return f"ONNX opset {given} instead of export.opset {asked}: a device in deploy.devices reads no newer one"


def val_spec():
    """The spec that evaluates the val split, where there is one."""
    return ["<results>/evaluate/val_spec.txt"] if "val" in SUBSETS else []


def all_shards():
    """The tfrecords of all splits."""
    return [path for split in SPLITS for path in shards(split)]


def first_shards(*splits):
    """One tfrecord for all that its job writes: for rules that run once a threshold.

    Each input of each job costs time in every plan. The targets name every shard.
    """
    return [shards(split)[0] for split in splits]


def ds_templates():
    """The templates of the DeepStream configs."""
    return sorted(os.path.relpath(path) for path in (BASE / "ds_configs").glob("*.j2"))


def report_templates():
    """The templates of the report's page, which a digest of Python code does not see."""
    return sorted(
        os.path.relpath(path) for path in (BASE / "scripts/report/templates").iterdir()
    )


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


def stage_outputs():
    """What each stage makes, in the order of the stages."""
    models = [
        m
        for m in ("unpruned", "chosen")
        if m in {*EXPORTED, *config["deploy"]["models"]}
    ]
    return {
        "index": [
            *(f"<results>/index/{s}/{d}.csv" for s in SPLITS for d in datasets_of(s)),
            *(f"<results>/index/{s}/groups.csv" for s in SPLITS),
        ],
        "choose_faces": [f"<results>/selection/{s}.csv" for s in SPLITS],
        "kitti": [
            f"<results>/kitti/{s}/{d}.manifest.csv"
            for s in SPLITS
            for d in datasets_of(s)
        ],
        "check_labels": [
            f"<results>/check_labels/{s}/{d}.jpg"
            for s in SPLITS
            for d in datasets_of(s)
        ],
        "tfrecords": all_shards(),
        "train": [f"<results>/unpruned/weights/{MODEL}"],
        "prune": [f"<results>/pruned/{t}/{MODEL}" for t in THRESHOLDS],
        "retrain": [f"<results>/retrained/{t}/weights/{MODEL}" for t in THRESHOLDS],
        "evaluate": [
            f"<results>/{run}/evaluation/{s}/metrics.json"
            for run in RUNS
            for s in SUBSETS
        ],
        "choose_model": [
            "<results>/chosen/choice.json",
            "<results>/chosen/inference_spec.txt",
        ],
        "export": [
            f"<results>/export/{m}/model{EXPORTER.export_suffix}" for m in models
        ],
        "etlt": [
            f"<results>/export/{m}/model.etlt"
            for m in models
            if config["export"]["etlt"]
        ],
        "calibrate": [
            f"<results>/export/{m}/calibration.trt{version}.bin"
            for m in models
            for version in CALIBRATED
        ],
        "tune_clustering": [f"<results>/export/{m}/clustering.json" for m in models],
        "judge_int8": [f"<results>/export/{m}/int8.json" for m in models if CALIBRATED],
        "ds_config": cases("local", "config_infer_primary.txt"),
        "verify": cases("local", "parity.json"),
        "report": ["<results>/report.html"],
    }


def targets(stage):
    """One output of each stage up to the named one.

    The late file alone would not do: when a stage fails, Snakemake deletes its output, and a missing
    file in the middle is no reason to run again while the old late file is still there.
    """
    stages = stage_outputs()
    last = list(stages).index(stage)
    return [
        path
        for name in list(stages)[: last + 1]
        if name not in MISSING_STAGES
        for path in stages[name]
    ]


def device_results():
    """Sizes and times of the device results on disk: the report shows them, but makes none."""
    folder = Path(config["results_dir"], "deployed")
    found = sorted(folder.glob("*/benchmark.json"))
    return {str(path): path.stat().st_mtime_ns for path in found}
