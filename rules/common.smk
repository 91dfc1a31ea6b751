"""Settings, paths and functions that the rules share."""

import hashlib
import json
import os
import re
import shlex
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path

from snakemake.settings.enums import RerunTrigger

BASE = Path(workflow.basedir)
SCRIPTS = str(BASE / "scripts")
sys.path.insert(0, SCRIPTS)

from code_digest import code_digest
from configuration import (
    ConfigError,
    check_config,
    merged,
    order_datasets,
    per_class,
    pruning_branches,
)
from datasets.errors import WITH_RESULTS, WITHOUT_DATA, missing_data
from datasets.fingerprint import fingerprint
from deepstream.devices import dla_core, lowest_opset, resolve
from deepstream.errors import DeepStreamError
from etlt.codec import KEY_VARIABLE
from toolkits.table import TOOLKITS

try:
    check_config(
        config, BASE / "config/config.schema.yaml", workflow.config_settings.config
    )
    order_datasets(config, Path(SETTINGS))
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

for key in ("results_dir", "data_root"):
    config[key] = os.path.expanduser(config[key])
for dataset in config["datasets"].values():
    dataset["root"] = str(
        Path(config["data_root"], os.path.expanduser(dataset["root"]))
    )

# Jobs run this project's modules with whatever Python they have, which need not know the project. What
# the user had stays behind it, and OUTER_PYTHONPATH gives it back to NVIDIA's programs. The shell sets
# it because Snakemake removes it from the environment under `--sdm conda`.
shell.prefix(
    'export OUTER_PYTHONPATH="${{PYTHONPATH-}}";'
    ' export PYTHONPATH={SCRIPTS:q}"${{PYTHONPATH:+:$PYTHONPATH}}"; '
)
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
RUNS = ["unpruned", *(f"retrained/{threshold}" for threshold in THRESHOLDS)]
EXPORTED = config["export"]["models"]
DEVICES = list(config["deploy"]["devices"])
MODEL = f"model{TOOLKIT.model_suffix}"
# With NVIDIA's codec a .tlt becomes plain HDF5, which the native toolkit exports and verifies.
DECRYPTS = TOOLKIT.decrypts(config["export"]["accept_nvidia_eff_licence"])
EXPORTER = TOOLKITS["native"] if DECRYPTS else TOOLKIT
MISSING_STAGES = TOOLKIT.lacks(config["export"]["accept_nvidia_eff_licence"])
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


def converted(*splits):
    """What tells of some splits' data: selections, and manifests of the converted images.

    Every job below the conversion names these as an input, needed or not, of the splits that it goes back
    to: a changed val split is no reason to train again. Snakemake looks again only at jobs that hang on a
    checkpoint directly when that has run; the others would keep the verdict of the first plan and train
    again, even when a changed `category_limit` gave the same selection.
    """
    return [
        *(f"<results>/selection/{split}.csv" for split in splits),
        *(
            f"<results>/kitti/{split}/{name}.manifest.csv"
            for split in splits
            for name in datasets_of(split)
        ),
    ]


CONVERSION = converted(*SPLITS)


def in_results(path):
    """The path as it stands on disk, for params: Snakemake fills in <results> in files only."""
    return path.replace("<results>", config["results_dir"])


def is_drawing():
    """Whether the graph is drawn and nothing is run, for which no file need be there."""
    drawings = ("--rulegraph", "--dag", "--filegraph", "--d3dag")
    return any(word.startswith(drawings) for word in sys.argv)


def raw_data(wildcards):
    """No file: stops the plan, with a line for each dataset of which something is missing."""
    datasets = config["datasets"]
    if is_drawing() or not missing_data(wildcards.dataset, datasets[wildcards.dataset]):
        return []
    index = Path(
        in_results(f"<results>/index/{wildcards.split}/{wildcards.dataset}.csv")
    )
    # Only params tell that raw files have changed.
    if (
        index.exists()
        and RerunTrigger.PARAMS not in workflow.dag_settings.rerun_triggers
    ):
        return []
    lines = [missing_data(name, dataset) for name, dataset in datasets.items()]
    lines += [WITHOUT_DATA, *([WITH_RESULTS] if index.exists() else [])]
    sys.exit("\n".join(filter(None, lines)))


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


def dataset_of(wildcards):
    """The settings of the job's own dataset, without those of its other splits."""
    dataset = config["datasets"][wildcards.dataset]
    return dataset | {"splits": {wildcards.split: dataset["splits"][wildcards.split]}}


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


def prune_flags():
    """Command line of the pruning settings that are the same for every threshold."""
    settings = config["prune"]
    excluded = settings["excluded_layers"]
    return (
        f"-eq {settings['equalization']} -n {settings['normalizer']}"
        f" -pg {settings['granularity']} -nf {settings['min_filters']}"
        + (f" -el {' '.join(excluded)}" if excluded else "")
    )


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


def evaluated_splits(wildcards):
    """The splits that an evaluation goes back to: of the model, and of the images."""
    return ["train", *(["val"] if wildcards.subset == "val" else [])]


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
