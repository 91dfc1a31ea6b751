"""Stands for a program of NVIDIA's toolkits: the native toolkit behind their names and formats.

Flags that the real program lacks end with status 2, specs are refused where its protobuf parser
would, outputs have its names, suffixes and shapes, and only what it prints is printed.
"""

import argparse
import contextlib
import io
import json
import os
import re
import shutil
import struct
import sys
import tempfile
from pathlib import Path

from detectnet_v2 import cli

DIALECT = os.environ["TEST_DIALECT"]
IS_TLT = DIALECT == "tlt2"
MODEL = ".hdf5" if DIALECT == "tao5" else ".tlt"
NEEDS_KEY = DIALECT != "tao5"
MOUNTS = [Path(folder) for folder in json.loads(os.environ["TEST_MOUNTS"])]
UFF = b"UFF, as opaque as the real one " * 64


def parser(task):
    flags = argparse.ArgumentParser(task)
    if task == "dataset_convert":
        flags.add_argument("-d", required=True)
        flags.add_argument("-o", required=True)
        return flags
    flags.add_argument("-k", required=NEEDS_KEY, default="")
    if task in ("train", "evaluate"):
        flags.add_argument("-e", required=True)
    if task == "train":
        flags.add_argument("-r", required=True)
        flags.add_argument("-n", default="model")
        flags.add_argument("--gpus", type=int, default=1)
        return flags
    if task == "inference":
        flags.add_argument("-e", required=True)
        flags.add_argument("-i", required=True)
        flags.add_argument("-o" if IS_TLT else "-r", required=True, dest="r")
        return flags
    flags.add_argument("-m", required=True)
    if task == "evaluate" and DIALECT == "tao5":
        flags.add_argument("-r")
    if task == "prune":
        flags.add_argument("-o", required=True)
        for name in ("-pth", "-eq", "-n", "-pg", "-nf"):
            flags.add_argument(name)
        if DIALECT == "tao5":
            flags.add_argument("--results_dir")
    if task == "export":
        flags.add_argument("-o", required=True)
        flags.add_argument("-e")
        if DIALECT == "tao5":
            flags.add_argument("--target_opset", type=int, default=12)
            flags.add_argument("--gen_ds_config", action="store_true")
    return flags


def visible(path):
    """The path where the container sees it: below a mount, links followed."""
    found = Path(path).resolve()
    if not any(found.is_relative_to(mount) for mount in MOUNTS):
        sys.exit(f"FileNotFoundError: [Errno 2] No such file or directory: '{path}'")
    return Path(path)


def checked_spec(path, scratch):
    """The spec after NVIDIA's parser, with its .tlt named as the native toolkit wants it."""
    text = visible(path).read_text()
    for pattern, message in (
        (r"^native \{", 'Message type "Experiment" has no field named "native".'),
        (
            None if IS_TLT else r"dbscan_min_samples: (\d*\.\d+)",
            "Couldn't parse integer: 0.05",
        ),
        (
            "dbscan_confidence_threshold" if IS_TLT else r"^ +confidence_threshold",
            "Message type has no field of this name for the confidence threshold.",
        ),
    ):
        if pattern and re.search(pattern, text, re.M):
            sys.exit(f"google.protobuf.text_format.ParseError: {message}")
    for name in re.findall(r'(?:pretrained_model_file|\bmodel): "(.+)"', text):
        text = text.replace(name, str(plain(name, scratch)))
    for name in re.findall(r'(?:image_directory_path|root_directory_path): "(.+)"', text):
        visible(Path(os.environ["DATA_BASE_PATH"], name))
    spec = scratch / "spec.txt"
    spec.write_text(text)
    return spec


def plain(model, scratch):
    """The model as Keras HDF5; the test's .tlt is one already, under another name."""
    copy = scratch / f"{Path(model).stem}.hdf5"
    shutil.copyfile(visible(model), copy)
    return copy


def native(*words):
    """Run the native toolkit; returns what it printed, or ends with its status."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = cli.main([str(word) for word in words])
    if status:
        print(printed.getvalue())
        sys.exit(status)
    return printed.getvalue()


def dataset_convert(args, scratch):
    native("dataset_convert", "-d", checked_spec(args.d, scratch), "-o", args.o)
    print("2020-08-31 06:45:34 - iva.detectnet_v2.dataio - INFO - Tfrecords generation complete.")


def train(args, scratch):
    spec = checked_spec(args.e, scratch)
    if os.environ["TEST_GPUS"] == "":
        sys.exit("failed call to cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected")
    results = visible(Path(args.r).parent) / Path(args.r).name
    weights = results / "weights" / f"{args.n}{MODEL}"
    weights.parent.mkdir(parents=True, exist_ok=True)
    old = sorted(results.glob("model.*-*.ckzip"))
    if old:
        # As the real one: the newest checkpoint counts, whatever it was trained for.
        print(f"Resuming from {old[-1]}")
        shutil.copyfile(old[-1], weights)
    else:
        native("train", "-e", spec, "-r", scratch / "run", "-n", args.n)
        shutil.copyfile(scratch / f"run/weights/{args.n}.hdf5", weights)
        step = "step" if IS_TLT else "epoch"
        shutil.copyfile(weights, results / f"model.{step}-1.ckzip")
        shutil.copyfile(weights, results / f"model.{step}-1{MODEL}")
    if not IS_TLT:
        with (results / "status.json").open("a") as status:
            for state in ("STARTED", "RUNNING", "SUCCESS"):
                status.write(json.dumps({"date": "8/31/2020", "status": state}) + "\n")
    print(f"2020-08-31 06:45:34,728 [INFO] key {args.k}: Saving trained model.")


def evaluate(args, scratch):
    spec = checked_spec(args.e, scratch)
    native("evaluate", "-e", spec, "-m", plain(args.m, scratch), "-r", scratch / "evaluation")
    metrics = json.loads((scratch / "evaluation/metrics.json").read_text())
    rows = sorted(metrics["average_precision"].items())
    print("\nMatching predictions to ground truth, class 1/2.: 100%|█| 76/76 [00:00<00:00]\r")
    print(f"\nValidation cost: {metrics['validation_cost']:f}")
    print(f"Mean average_precision (in %): {metrics['mAP']:.4f}\n")
    if IS_TLT:
        print("class name      average precision (in %)\n------------  --------------------------")
        for name, value in rows:
            print(f"{name:<12}  {value:>26.6g}")
    else:
        rule = "+------------+--------------------------+"
        print(f"{rule}\n| class name | average precision (in %) |\n{rule}")
        for name, value in rows:
            print(f"|{name:^12}|{value!s:^26}|")
        print(rule)
    print(f"\nMedian Inference Time: {metrics['median_inference_time_s']:f}")
    print("2020-08-31 06:45:34,728 [INFO] iva.detectnet_v2.scripts.evaluate: Evaluation complete.")


def prune(args, scratch):
    flags = [
        word
        for name in ("pth", "eq", "n", "pg", "nf")
        if (value := getattr(args, name))
        for word in (f"-{name}", value)
    ]
    pruned = scratch / "pruned.hdf5"
    told = native("prune", "-m", plain(args.m, scratch), "-o", pruned, *flags)
    shutil.copyfile(pruned, args.o)
    ratio = re.search(r"Pruning ratio .*: (\S+)", told)[1]
    print("2024-08-21 08:13:11 [INFO] modulus.pruning.pruning: Exploring graph", file=sys.stderr)
    print(
        "2024-08-21 08:13:59 [INFO] iva.common.magnet_prune: Pruning ratio (pruned model / "
        f"original model): {ratio}",
        file=sys.stderr,
    )


def inference(args, scratch):
    spec = checked_spec(args.e, scratch)
    native("inference", "-e", spec, "-i", visible(args.i), "-r", scratch / "out")
    for name in ("images_annotated", "labels"):
        shutil.copytree(scratch / "out" / name, Path(args.r, name), dirs_exist_ok=True)
    print("2020-08-31 06:45:34,728 [INFO] iva.detectnet_v2.scripts.inference: Inference complete.")


def export(args, scratch):
    output = Path(args.o)
    if output.exists():
        sys.exit(f"AssertionError: Default output file {output} already exists")
    model = plain(args.m, scratch)
    if DIALECT == "tao5":
        flags = ["-e", args.e] if args.e else []
        flags += ["--gen_ds_config"] if args.gen_ds_config else []
        native("export", "-m", model, "-o", output, "--target_opset", args.target_opset, *flags)
    else:
        name = b"input_1"
        output.write_bytes(struct.pack("<i", len(name)) + name + UFF)
    print(f"2020-08-31 06:45:34,728 [INFO] Output model: {output}")


TASKS = {f.__name__: f for f in (dataset_convert, train, evaluate, prune, inference, export)}


def main():
    task, *words = sys.argv[1:]
    if IS_TLT and task not in ("dataset_convert", "prune"):
        if words[0] != "detectnet_v2":
            sys.exit(f"invalid choice: '{words[0]}' (choose from 'detectnet_v2', 'ssd')")
        words = words[1:]
    args = parser(task).parse_args(words)
    if getattr(args, "k", None) == "" and NEEDS_KEY:
        sys.exit("ValueError: the key is empty")
    with tempfile.TemporaryDirectory() as scratch:
        TASKS[task](args, Path(scratch))


if __name__ == "__main__":
    main()
