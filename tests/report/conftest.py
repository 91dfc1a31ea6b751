"""A small results folder in the formats of the workflow's own programs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import yaml
from choose_model import write_choice
from configuration import check_config
from detectnet_v2.tfrecord import encode_example, part_of, write_part
from jetson.table import published
from PIL import Image, ImageDraw
from report.drawing import FigureFolder, style

WIDTH, HEIGHT = 320, 176
CLASSES = ("mask", "no-mask")
THRESHOLDS = ("0.5", "0.6", "0.7")
RUNS = ("unpruned", *(f"retrained/{t}" for t in THRESHOLDS))
PARAMETERS = dict(zip(RUNS, (11_203_352, 2_310_144, 1_344_402, 702_116), strict=True))
MACS = dict(zip(RUNS, (9.31e9, 3.02e9, 1.98e9, 1.11e9), strict=True))
MAP = dict(zip(RUNS, (81.42, 81.95, 81.07, 77.6), strict=True))
DATASETS = {"train": ("kaggle", "mafa", "fddb", "widerface"), "val": ("mafa", "widerface")}


@dataclass(frozen=True)
class Run:
    """A results folder and the configuration that it came from."""

    root: Path
    config: dict

    def remove(self, *names: str) -> None:
        """Delete files, by glob below the root; the pattern must match."""
        for name in names:
            found = list(self.root.glob(name))
            assert found, name
            for path in found:
                path.unlink()


@pytest.fixture(autouse=True)
def _no_display():
    matplotlib.use("agg")


@pytest.fixture(scope="session")
def report_config(repository: Path) -> dict:
    """The shipped configuration with the small network, its defaults filled in."""
    config = yaml.safe_load((repository / "config/config.yaml").read_text())
    config |= {"image_width": WIDTH, "image_height": HEIGHT, "category_limit": 400}
    config["prune"]["thresholds"] = [0.5, 0.6, 0.7]
    config["train"]["epochs"] = 30
    check_config(config, repository / "config/config.schema.yaml")
    config["deploy"]["devices"] = {
        "xavier_nx": {
            **{"host": "192.0.2.7", "user": "somebody", "board": "xavier_nx"},
            "cameras": {"rtsp": {"uri": "rtsp://somebody:secret@192.0.2.9/stream", "fps": 25}},
        },
        "nano": {"host": "192.0.2.8", "board": "nano"},
    }
    return config


@pytest.fixture(scope="session")
def full_run(tmp_path_factory: pytest.TempPathFactory, report_config: dict) -> Run:
    """A complete results folder; tests that change it take `run`."""
    root = tmp_path_factory.mktemp("results")
    write_results(root, report_config)
    return Run(root, report_config)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[FigureFolder]:
    """Where a test's figures go, drawn in the report's style."""
    with style():
        yield FigureFolder(tmp_path / "figures")


@pytest.fixture
def run(tmp_path: Path, report_config: dict) -> Run:
    """A complete results folder of the test's own."""
    write_results(tmp_path / "results", report_config, images=12)
    return Run(tmp_path / "results", report_config)


def write_results(root: Path, config: dict, images: int = 40) -> None:
    """Fill `root` as a run would; `images` is the number of images of fold 0."""
    random = np.random.default_rng(7)
    write_index_and_selection(root, random)
    write_sheets(root)
    names = write_fold(root, random, images)
    for run in RUNS:
        write_training(root / run, run, random, config["train"]["epochs"])
        for subset in ("fold0", "val"):
            write_evaluation(root / run / "evaluation" / subset, run, names, random, root)
    for threshold in THRESHOLDS:
        write_pruning(root / "pruned" / threshold, f"retrained/{threshold}")
    write_choice_of(root, config)
    write_clustering(root)
    write_parity(root, config)
    write_benchmarks(root, random)
    write_times(root)


def write_csv(path: Path, columns: str, rows: list) -> None:
    """A table with the columns of a comma-separated header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=columns.split(",")).to_csv(path, index=False)


def write_json(path: Path, document: dict) -> None:
    """A JSON document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def write_index_and_selection(root: Path, random: np.random.Generator) -> None:
    """index/, selection/ and the manifests."""
    reasons = {
        "kaggle": ["class poor is mapped to null"],
        "mafa": ["neither mask nor no-mask by occ_type, occ_degree and face_type",
                 "width / height of the image is below min_aspect 1"],
        "fddb": ["outside the image"],
        "widerface": ["event is not in the pick list", "occlusion 1", "occlusion 2",
                      "more than 3 faces are left (max_faces)"],
    }  # fmt: skip
    for split, datasets in DATASETS.items():
        totals = dict.fromkeys(CLASSES, 0)
        counts, chosen = [], []
        for dataset in datasets:
            index = []
            taken = dict.fromkeys(CLASSES, 0)
            for number in range(60 if split == "train" else 20):
                image = f"images/{dataset}_{number:04d}.jpg"
                for _ in range(int(random.integers(1, 5))):
                    name = "no-mask" if dataset in ("fddb", "widerface") else str(
                        random.choice(CLASSES, p=[0.8, 0.2]))  # fmt: skip
                    height = float(np.clip(random.lognormal(4.3, 0.7), 4, 400))
                    box = (10.0, 20.0, 10 + 0.8 * height, 20 + height)
                    dropped = str(random.choice(reasons[dataset])) if random.random() < 0.2 else ""
                    index.append((image, 800, 453, name, *box, dropped))
                    if not dropped:
                        taken[name] += 1
                        chosen.append(
                            (
                                dataset,
                                image,
                                f"{number:08x}-{dataset}-{number}",
                                800,
                                453,
                                name,
                                *box,
                            )
                        )
            index.append((f"images/{dataset}_broken.jpg", 0, 0, "", *[""] * 4, "truncated JPEG"))
            columns = "image,width,height,class,x1,y1,x2,y2,dropped"
            write_csv(root / f"index/{split}/{dataset}.csv", columns, index)
            write_csv(
                root / f"kitti/{split}/{dataset}.manifest.csv",
                "name,image_sha256,label_sha256,error",
                [
                    ("a-kaggle-1", "00", "11", ""),
                    ("b-kaggle-2", "", "", "premature end of the JPEG"),
                ],
            )
            for name in CLASSES:
                totals[name] += taken[name]
                counts.append((dataset, name, taken[name] + 3, taken[name], totals[name], 60))
        write_csv(
            root / f"selection/{split}.csv",
            "dataset,image,name,width,height,class,x1,y1,x2,y2",
            sorted(chosen, key=lambda row: row[2]),
        )
        write_csv(
            root / f"selection/{split}.counts.csv",
            "dataset,class,labelled,taken,total,images",
            counts,
        )


def write_sheets(root: Path) -> None:
    """check_labels/."""
    for split, datasets in DATASETS.items():
        for dataset in datasets:
            path = root / f"check_labels/{split}/{dataset}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            sheet = Image.new("RGB", (4 * WIDTH, 3 * HEIGHT), "#404a55")
            pen = ImageDraw.Draw(sheet)
            for i in range(12):
                x, y = (i % 4) * WIDTH, (i // 4) * HEIGHT
                pen.rectangle(
                    (x + 4, y + 4, x + WIDTH - 4, y + HEIGHT - 4), fill=(90 + 10 * i, 120, 140)
                )
                pen.rectangle((x + 100, y + 40, x + 170, y + 130), outline="#1f9d61", width=3)
            sheet.save(path, quality=85)


def write_fold(root: Path, random: np.random.Generator, images: int) -> list[str]:
    """kitti/train/ and the tfrecords of fold 0; returns the images' names."""
    names = [f"{7919 * i:08x}-{DATASETS['train'][i % 4]}-images_{i:04d}" for i in range(images)]
    for folder in ("images", "labels"):
        (root / "kitti/train" / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        faces = []
        photo = Image.new(
            "RGB", (WIDTH, HEIGHT), tuple(int(v) for v in random.integers(60, 150, 3))
        )
        pen = ImageDraw.Draw(photo)
        for place in range(int(random.integers(1, 4))):
            size = int(random.integers(12, 70))
            x, y = 20 + 100 * place, int(random.integers(5, HEIGHT - 80))
            label = str(random.choice(CLASSES))
            pen.ellipse((x, y, x + 0.8 * size, y + size), fill="#e0b090")
            if label == "mask":
                pen.rectangle((x, y + size / 2, x + 0.8 * size, y + 0.9 * size), fill="#7fb6d6")
            faces.append(
                f"{label} 0 0 0 {x}.00 {y}.00 {x + 0.8 * size:.2f} {y + size}.00 0 0 0 0 0 0 0"
            )
        photo.save(root / f"kitti/train/images/{name}.jpg", quality=90)
        (root / f"kitti/train/labels/{name}.txt").write_text("".join(f"{f}\n" for f in faces))
    (root / "tfrecords/train").mkdir(parents=True, exist_ok=True)
    for shard in range(2):
        path = root / f"tfrecords/train/kitti_trainval-fold-000-of-002-shard-{shard:05d}-of-00002"
        write_part(
            path,
            [encode_example({"frame/id": [f"images/{name}".encode()]}) for name in names[shard::2]],
        )
        part_of(path).replace(path)
    return names


def write_training(folder: Path, run: str, random: np.random.Generator, epochs: int) -> None:
    """training.csv."""
    rows = []
    start = 0.02 if run == "unpruned" else 0.006
    for epoch in range(1, epochs + 1):
        share = epoch / epochs
        rate = 5e-4 * min(share / 0.1, 1, max((1 - share) / 0.3, 0.01) ** 1.5)
        loss = start * np.exp(-3 * share) + 0.0012 + 0.0002 * random.random()
        scores = ("", "", "", "")
        if epoch % 5 == 0:
            now = MAP[run] * (1 - np.exp(-5 * share))
            scores = (loss * 1.1, now, now + 1.5, now - 1.5)
        rows.append((epoch, loss, rate, 31.5 + random.random(), *scores))
    write_csv(
        folder / "training.csv",
        "epoch,loss,learning_rate,images_per_second,validation_cost,mAP,AP mask,AP no-mask",
        rows,
    )


def write_evaluation(
    folder: Path, run: str, names: list[str], random: np.random.Generator, root: Path
) -> None:
    """metrics.json, precision_recall.csv and detections.csv."""
    mean = MAP[run] - (4 if folder.name == "val" else 0)
    write_json(
        folder / "metrics.json",
        {
            "mAP": mean,
            "average_precision": {"mask": mean + 1.5, "no-mask": mean - 1.5},
            "corrected": {"mAP": mean + 1, "average_precision": {"mask": mean, "no-mask": mean}},
            "coco": {"AP": mean - 35, "AP50": mean + 2, "per_class": {}},
            "validation_cost": 0.0012,
            "images": len(names),
            "faces": {"mask": 30, "no-mask": 28},
            "median_inference_time_s": 0.02,
            "model": {
                "parameters": PARAMETERS[run],
                "macs": MACS[run],
                "input": [3, HEIGHT, WIDTH],
            },
            "postprocessing": {},
        },
    )
    curve = []
    for name in CLASSES:
        for step, confidence in enumerate(np.linspace(0.99, 0.05, 120), 1):
            recall = 0.95 * (1 - np.exp(-step / 30)) * mean / 82
            precision = max(0.2, 1 - (step / 140) ** 3) * (0.99 if name == "mask" else 0.95)
            curve.append((name, confidence, precision, recall))
    write_csv(folder / "precision_recall.csv", "class,confidence,precision,recall", curve)
    rows = []
    for name in names:
        for line in (root / f"kitti/train/labels/{name}.txt").read_text().splitlines():
            fields = line.split()
            if random.random() < 0.85:
                jitter = random.normal(0, 1.5, 4)
                box = [round(float(v) + j, 2) for v, j in zip(fields[4:8], jitter, strict=True)]
                rows.append(
                    (f"images/{name}.jpg", fields[0], *box, round(0.6 + 0.4 * random.random(), 4))
                )
        if random.random() < 0.2:
            rows.append((f"images/{name}.jpg", "no-mask", 230.0, 20.0, 270.0, 75.0, 0.71))
        rows.append((f"images/{name}.jpg", "mask", 5.0, 5.0, 40.0, 60.0, 0.06))
    write_csv(folder / "detections.csv", "image,class,x1,y1,x2,y2,confidence", rows)


def write_pruning(folder: Path, run: str) -> None:
    """pruning.json."""
    before = {"conv1": 64}
    for block in range(1, 5):
        for part in "ab":
            for conv in ("conv_1", "conv_2", *(["conv_shortcut"] if part == "a" else [])):
                before[f"block_{block}{part}_{conv}"] = 64 * 2 ** (block - 1)
    keep = (PARAMETERS[run] / PARAMETERS["unpruned"]) ** 0.5
    after = {
        name: max(16, 8 * round(width * keep * (0.7 + 0.6 * (i % 3) / 2) / 8))
        for i, (name, width) in enumerate(before.items())
    }
    write_json(
        folder / "pruning.json",
        {
            "ratio": PARAMETERS[run] / PARAMETERS["unpruned"],
            "threshold": float(folder.name),
            "parameters": {"before": PARAMETERS["unpruned"], "after": PARAMETERS[run]},
            "macs": {"before": MACS["unpruned"], "after": MACS[run]},
            "widths": {"before": before, "after": after},
        },
    )


def write_choice_of(root: Path, config: dict) -> None:
    """chosen/, by the workflow's own script."""
    folder = root / "chosen"
    folder.mkdir(parents=True)
    models = [root / run / "weights/model.hdf5" for run in RUNS]
    for model in models:
        model.parent.mkdir(parents=True, exist_ok=True)
        model.write_bytes(b"weights")
    write_choice(
        list(RUNS),
        [str(root / run / "evaluation/fold0/metrics.json") for run in RUNS],
        [str(model) for model in models],
        config["prune"]["max_map_drop"],
        str(folder / "choice.json"),
        str(folder / "models.csv"),
        str(folder / "model.hdf5"),
        str(folder / "metrics.json"),
    )


def write_clustering(root: Path) -> None:
    """export/{model}/clustering.json, as scripts/tune_clustering.py writes it."""
    for model, run in (("unpruned", "unpruned"), ("chosen", "retrained/0.6")):
        effect = {"images": 40}
        changes = {"nvinfer_defaults": -9.5, "tuned": 0.8, "tuned_dbscan": 0.3}
        for setting, change in changes.items():
            mean = MAP[run] + change
            effect[setting] = {
                "mAP": mean,
                "average_precision": {"mask": mean + 1.5, "no-mask": mean - 1.5},
                "precision": {"mask": 0.91, "no-mask": 0.88},
                "recall": {"mask": 0.85, "no-mask": 0.8},
            }
        numbers = {
            "pre-cluster-threshold": 0.34,
            "post-cluster-threshold": 0.34,
            "nms-iou-threshold": 0.45,
            "topk": 50,
        }
        write_json(
            root / f"export/{model}/clustering.json",
            {
                "cluster-mode": 2,
                "classes": dict.fromkeys(CLASSES, numbers),
                "fold0": effect,
                "val": effect,
            },
        )


def write_parity(root: Path, config: dict) -> None:
    """deepstream/, as scripts/verify.py writes it."""
    devices = {"local": ("gpu",), "nano": ("gpu",), "xavier_nx": ("gpu", "dla0")}
    for device, engines in devices.items():
        for engine in engines:
            for model, run in (("unpruned", "unpruned"), ("chosen", "retrained/0.6")):
                mean = MAP[run] + 0.8
                each = {"mask": mean + 1.5, "no-mask": mean - 1.5}
                write_json(
                    root / f"deepstream/{device}/{model}-{engine}/parity.json",
                    {
                        "release": f"{model}-{engine}",
                        "images": 40,
                        "toolkit": {"mAP": mean + 0.02, "average_precision": each},
                        "deepstream": {"mAP": mean, "average_precision": each},
                        "drop": 0.02,
                        "max_parity_drop": config["export"]["max_parity_drop"],
                        "passed": True,
                        "agreement": {"share_of_images": 0.975, "share_of_boxes_alone": 0.01},
                        "clustering": {"algorithm": "NMS", "classes": {}},
                        "toolkit_own_clustering": {"mAP": MAP[run], "gap": -0.8},
                    },
                )


def write_benchmarks(root: Path, random: np.random.Generator) -> None:
    """deployed/, as scripts/benchmark_device.py and scripts/deploy_local.py write it, with logs."""
    nx = {("unpruned", "gpu"): 118.4, ("chosen", "gpu"): 251.9,
          ("unpruned", "dla0"): 29.1, ("chosen", "dla0"): 96.3}  # fmt: skip
    desk = {("unpruned", "gpu"): 21.3, ("chosen", "gpu"): 57.8}
    for device, figures in (("xavier_nx", nx), ("local", desk)):
        folder = root / "deployed" / device
        logs = folder / "logs" if device == "xavier_nx" else folder
        cases = [
            measured_case(logs, model, engine, fps, random, is_board=device == "xavier_nx")
            for (model, engine), fps in figures.items()
        ]
        versions = {"board": None, "machine": "Some CPU, 8 cores"}
        if device == "xavier_nx":
            versions = {"board": device, "model": "Jetson Xavier NX", "deepstream": "6.3"}
        write_json(
            folder / "benchmark.json",
            {
                "device": device,
                "measured_at": "2026-01-05T10:00:00+0100",
                "versions": versions,
                "settings": {"duration_s": 60},
                "map_percent": {"unpruned": MAP["unpruned"], "chosen": MAP["retrained/0.6"]},
                "cases": cases,
            },
        )


def measured_case(
    logs: Path, model: str, engine: str, fps: float, random: np.random.Generator, is_board: bool
) -> dict:
    """A case of a benchmark.json, and the log that it was read from."""
    values = fps + random.normal(0, fps / 60, 12)
    log = logs / f"{model}-{engine}/measure.log"
    log.parent.mkdir(parents=True)
    warm = "\n**PERF:  FPS 0 (Avg)\t\n**PERF:  0.00 (0.00)\t\n"
    lines = "".join(f"**PERF:  {v:.2f} ({fps:.2f})\t\n" for v in values)
    log.write_text(f"{warm}{lines}** INFO: quitting\n")
    (log.parent / "result").write_text(f"warm_log={len(warm)}\nend_log={len(warm + lines)}\n")
    middle = round(float(np.median(values)), 2)
    case = {
        "case": f"{model}-{engine}",
        "model": model,
        "engine": engine,
        "precision": "fp16" if is_board else "fp32",
        "batch": 1,
        "streams": 1,
        "fps": {
            "per_stream": [middle],
            "total": middle,
            "lowest": round(float(values.min()), 2),
            "highest": round(float(values.max()), 2),
            "samples": 12,
        },
        "measured_s": 60,
        "app_status": 0,
    }
    if is_board:
        case |= {
            "engine_build": {"from_cache": False, "build_s": 214, "files": [], "rebuilt": False},
            "tegrastats": {
                "readings": 60,
                "power_mw": {"mean": 12350.0, "highest": 14100},
                "highest_temperature_c": {"GPU": 61.5, "CPU": 58.0},
            },
            "throttled_by": [],
            "published_fps": published("xavier_nx", model, engine),
        }
    return case


def write_times(root: Path) -> None:
    """benchmarks/, as Snakemake writes them."""
    for name in ("train/unpruned", *(f"retrain/{t}" for t in THRESHOLDS)):
        path = root / f"benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("s\th:m:s\tmax_rss\tmean_load\n421.5\t0:07:01\t2310.4\t180.2\n")
