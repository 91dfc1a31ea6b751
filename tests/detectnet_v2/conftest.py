"""Fixtures for the tests of the detectnet_v2 package."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from detectnet_v2 import cli, objectives
from detectnet_v2.model import DetectNetV2
from detectnet_v2.model_file import save_model
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from . import training_runs as runs


@pytest.fixture(autouse=True)
def quiet_afterwards() -> Iterator[None]:
    """Take away the log handler that the command line leaves, on a stream that pytest closes."""
    root = logging.getLogger()
    level = root.level
    yield
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture
def make_model() -> Callable[..., DetectNetV2]:
    """A function that builds a DetectNetV2 whose values matter everywhere, as after training.

    Fresh batch norms and biases are neutral, so that mistakes with them would not show.
    """

    def make(*args, **options) -> DetectNetV2:
        generator = torch.Generator().manual_seed(5)
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = DetectNetV2(*args, **options)
        with torch.no_grad():
            for name, value in model.state_dict().items():
                if name.endswith("running_var") or (".weight" in name and value.ndim == 1):
                    value.uniform_(0.5, 1.5, generator=generator)
                elif value.ndim == 1:
                    value.uniform_(-0.3, 0.3, generator=generator)
                elif value.ndim == 4:
                    value.mul_(torch.rand(value.shape[0], 1, 1, 1, generator=generator) + 0.5)
        return model.eval()

    return make


@pytest.fixture
def stored(make_model, tmp_path) -> tuple[DetectNetV2, Path]:
    """A ResNet 10 for mask and no-mask, and the file it was saved to."""
    model = make_model(10, 2, class_names=["mask", "no-mask"], input_height=32, input_width=48)
    path = tmp_path / "model.hdf5"
    save_model(model, path)
    return model, path


WIDTH, HEIGHT = 160, 96
COLORS = {"mask": (255, 0, 0), "no-mask": (0, 255, 0)}


@pytest.fixture
def color_detector(tmp_path) -> Path:
    """A DetectNet_v2 in ONNX that finds red cells (mask) and green ones (no-mask).

    Its coverage is 0.88 in a cell of the full colour and 0.12 where the colour is missing; its
    boxes are the cells: 16 pixels from 16 j, 16 i. Images are 160 x 96.
    """
    cell = objectives.STRIDE
    weight = np.zeros((10, 3, 1, 1), np.float32)
    bias = np.zeros(10, np.float32)
    bias[:8] = np.tile([0.5, 0.5, cell - 0.5, cell - 0.5], 2) / objectives.SCALE
    weight[8, 0] = weight[9, 1] = 4.0
    bias[8:] = -2.0
    graph = helper.make_graph(
        [
            helper.make_node(
                "AveragePool", ["input_1"], ["cells"], kernel_shape=[cell] * 2, strides=[cell] * 2
            ),
            helper.make_node("Conv", ["cells", "w_bbox", "b_bbox"], ["output_bbox/BiasAdd"]),
            helper.make_node("Conv", ["cells", "w_cov", "b_cov"], ["coverage"]),
            helper.make_node("Sigmoid", ["coverage"], ["output_cov/Sigmoid"]),
        ],
        "colors",
        [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", count, 6, 10])
            for name, count in (("output_bbox/BiasAdd", 8), ("output_cov/Sigmoid", 2))
        ],
        [
            numpy_helper.from_array(weight[:8], "w_bbox"),
            numpy_helper.from_array(bias[:8], "b_bbox"),
            numpy_helper.from_array(weight[8:], "w_cov"),
            numpy_helper.from_array(bias[8:], "b_cov"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    path = tmp_path / "colors.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture
def paint() -> Callable[[Path, Mapping[str, Sequence[tuple[int, int]]]], None]:
    """A function that writes a black image with cells (column, row) in the classes' colours."""

    def write(path: Path, cells: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for name, places in cells.items():
            for column, row in places:
                pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = COLORS[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    return write


@pytest.fixture
def label() -> Callable[[str, int, int], str]:
    """A function that returns the KITTI line of an object that fills a cell (column, row)."""

    def line(name: str, column: int, row: int) -> str:
        x, y = 16 * column, 16 * row
        return f"{name} 0.00 0 0.00 {x}.00 {y}.00 {x + 16}.00 {y + 16}.00" + " 0.00" * 7

    return line


@pytest.fixture
def small_spec(repository, tmp_path) -> Callable[..., Path]:
    """A function that writes the recipe's training spec for images of 160 x 96 in tmp_path/data.

    Its arguments are pairs of texts to replace.
    """

    def write(*replacements: tuple[str, str]) -> Path:
        text = (repository / "tests/detectnet_v2/specs/tlt2_train.txt").read_text()
        for old, new in (
            ("output_image_width: 960", f"output_image_width: {WIDTH}"),
            ("output_image_height: 544", f"output_image_height: {HEIGHT}"),
            ("/home/data/tfrecords/kitti_train/*", f"{tmp_path}/data/tfrecords/*"),
            ("/home/data/train", f"{tmp_path}/data"),
            ('image_extension: "jpg"', 'image_extension: "png"'),
            ("minimum_bounding_box_height: 20", "minimum_bounding_box_height: 4"),
            ("minimum_height: 20", "minimum_height: 4"),
            ("coverage_threshold: 0.00499999988824", "coverage_threshold: 0.5"),
            *replacements,
        ):
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / "spec.txt"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def tfrecords_spec(tmp_path) -> Path:
    """The spec that converts tmp_path/data: PNG images, four in ten for validation, two shards."""
    path = tmp_path / "tfrecords.txt"
    path.write_text(
        f'''kitti_config {{
  root_directory_path: "{tmp_path}/data"
  image_dir_name: "images"
  label_dir_name: "labels"
  image_extension: ".png"
  partition_mode: "random"
  num_partitions: 2
  val_split: 40
  num_shards: 2
}}
'''
    )
    return path


@pytest.fixture(scope="session")
def dataset(tmp_path_factory) -> Path:
    """A KITTI folder of 20 images with its tfrecords: 4 images to validate, 16 to train."""
    root = tmp_path_factory.mktemp("scenes")
    rng = np.random.default_rng(4)
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for i in range(runs.COUNT):
        runs.draw_scene(rng, root / "images" / f"{i:03d}.png", root / "labels" / f"{i:03d}.txt")
    spec = root / "convert.txt"
    spec.write_text(
        f'kitti_config {{ root_directory_path: "{root}" image_dir_name: "images" '
        'label_dir_name: "labels" image_extension: ".png" partition_mode: "random" '
        "num_partitions: 2 val_split: 20 num_shards: 2 }"
    )
    assert cli.main(["dataset_convert", "-d", str(spec), "-o", str(root / "tfrecords/set")]) == 0
    return root


@pytest.fixture(scope="session")
def narrow(tmp_path_factory) -> Path:
    """An untrained network with few filters, so that tests are quick."""
    path = tmp_path_factory.mktemp("narrow") / "narrow.hdf5"
    torch.manual_seed(0)
    widths = dict.fromkeys(runs.LAYERS_10, 8)
    widths |= {f"block_{block}a_conv_shortcut": 8 for block in range(1, 5)}
    widths["conv1"] = 8
    model = DetectNetV2(
        10,
        2,
        widths=widths,
        input_height=runs.HEIGHT,
        input_width=runs.WIDTH,
        class_names=list(runs.CLASSES),
    )
    save_model(model, path)
    return path


@pytest.fixture
def spec(tmp_path, dataset, narrow):
    """A function that writes a spec which starts from the narrow network."""

    def make(name: str = "spec.txt", model_config: str | None = None, **settings) -> Path:
        if model_config is None:
            model_config = f'load_graph: true pretrained_model_file: "{narrow}"'
        return runs.write_spec(tmp_path / name, dataset, model_config, **settings)

    return make


@pytest.fixture
def environment(repository) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(repository / "scripts"), "OMP_NUM_THREADS": "1"}
