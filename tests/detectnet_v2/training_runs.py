"""What the tests of whole trainings share: a set of drawn images, a spec, and looks at results.

Red rectangles are masks, blue ones are none.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from detectnet_v2 import cli
from detectnet_v2.model_file import load_model
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 96, 64
COUNT = 20
CLASSES = {"mask": (220, 40, 40), "no-mask": (40, 40, 220)}
LAYERS_10 = [f"block_{block}a_conv_{i}" for block in range(1, 5) for i in (1, 2)]


def draw_scene(rng: np.random.Generator, image_path: Path, label_path: Path) -> None:
    image = Image.fromarray(rng.integers(90, 160, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    lines = []
    for name, color in CLASSES.items():
        x, y = rng.integers(0, WIDTH - 40), rng.integers(0, HEIGHT - 34)
        box = [x, y, x + rng.integers(20, 40), y + rng.integers(20, 34)]
        ImageDraw.Draw(image).rectangle(box, fill=color)
        lines.append(f"{name} 0 0 0 {' '.join(f'{v:.2f}' for v in box)} 0 0 0 0 0 0 0\n")
    image.save(image_path)
    label_path.write_text("".join(lines))


def per_class(text: str) -> str:
    return "\n".join(text.replace("CLASS", name) for name in CLASSES)


def write_spec(path: Path, dataset: Path, model_config: str, **settings) -> Path:
    """A complete spec; ``settings`` replace the values of the same names."""
    values = {
        "seed": 7,
        "epochs": 4,
        "batch": 4,
        "rate": 5e-3,
        "training": "",
        "native": "",
        "auto_weights": "true",
        "sources": f'tfrecords_path: "{dataset}/tfrecords/*" image_directory_path: "{dataset}"',
    } | settings
    path.write_text(
        f"""
random_seed: {values["seed"]}
dataset_config {{
  data_sources {{ {values["sources"]} }}
  image_extension: "png"
  {per_class('target_class_mapping { key: "CLASS" value: "CLASS" }')}
  validation_fold: 0
}}
augmentation_config {{
  preprocessing {{ output_image_width: {WIDTH} output_image_height: {HEIGHT}
                   output_image_channel: 3 }}
  spatial_augmentation {{ hflip_probability: 0.5 zoom_min: 0.9 zoom_max: 1.1 }}
  color_augmentation {{ color_shift_stddev: 0.02 contrast_center: 0.5 }}
}}
postprocessing_config {{
  {
            per_class(
                'target_class_config { key: "CLASS" value { clustering_config { '
                "coverage_threshold: 0.2 dbscan_eps: 0.4 dbscan_min_samples: 0.05 "
                "minimum_bounding_box_height: 2 } } }"
            )
        }
}}
model_config {{ num_layers: 10 use_batch_norm: true
                objective_set {{ bbox {{ scale: 35 offset: 0.5 }} cov {{ }} }} {model_config} }}
evaluation_config {{
  validation_period_during_training: 2 first_validation_epoch: 2
  {per_class('minimum_detection_ground_truth_overlap { key: "CLASS" value: 0.5 }')}
  {
            per_class(
                'evaluation_box_config { key: "CLASS" value { minimum_height: 2 '
                "maximum_height: 999 minimum_width: 2 maximum_width: 999 } }"
            )
        }
}}
cost_function_config {{
  {
            per_class(
                'target_classes { name: "CLASS" class_weight: 1 coverage_foreground_weight: 0.5 '
                'objectives { name: "cov" initial_weight: 1 weight_target: 1 } '
                'objectives { name: "bbox" initial_weight: 10 weight_target: 1 } }'
            )
        }
  enable_autoweighting: {values["auto_weights"]}
  max_objective_weight: 0.9999 min_objective_weight: 0.0001
}}
training_config {{
  batch_size_per_gpu: {values["batch"]} num_epochs: {values["epochs"]} checkpoint_interval: 1
  learning_rate {{ soft_start_annealing_schedule {{ min_learning_rate: {values["rate"] / 100}
    max_learning_rate: {values["rate"]} soft_start: 0.1 annealing: 0.7 }} }}
  regularizer {{ type: L1 weight: 3e-9 }}
  optimizer {{ adam {{ epsilon: 1e-8 beta1: 0.9 beta2: 0.999 }} }}
  {values["training"]}
}}
bbox_rasterizer_config {{
  {
            per_class(
                'target_class_config { key: "CLASS" value { cov_center_x: 0.5 cov_center_y: 0.5 '
                "cov_radius_x: 0.6 cov_radius_y: 0.6 bbox_min_radius: 0.5 } }"
            )
        }
  deadzone_radius: 0.4
}}
native {{ threads: 1 workers: 1 cache_directory: "{dataset / "cache"}" {values["native"]} }}
"""
    )
    return path


def train(spec: Path, results: Path, *flags: str) -> int:
    return cli.main(["train", "-e", str(spec), "-r", str(results), "-n", "model", *flags])


def table(results: Path) -> list[dict[str, str]]:
    with (results / "training.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def weights(results: Path) -> dict[str, torch.Tensor]:
    return load_model(results / "weights" / "model.hdf5").state_dict()


def assert_equal_weights(first: Path, second: Path, tolerance: float = 0.0) -> None:
    others = weights(second)
    for name, value in weights(first).items():
        torch.testing.assert_close(value, others[name], rtol=0, atol=tolerance, msg=name)


def without_speed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [row | {"images_per_second": ""} for row in rows]


def command(spec: Path, results: Path, *flags: str) -> list[str]:
    program = [sys.executable, "-m", "detectnet_v2", "train"]
    return [*program, "-e", str(spec), "-r", str(results), "-n", "model", *flags]
