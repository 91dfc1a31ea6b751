"""A detector whose answers are known by construction, clips to run it on, and rendered releases."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import onnx
import pytest
from deepstream import devices
from deepstream.render import Video, read_model, render, write_release
from detectnet_v2.cli import main as detectnet_v2
from onnx import TensorProto, helper, numpy_helper

CLASSES = ["mask", "no-mask"]
WIDTH, HEIGHT, STRIDE = 320, 192, 16
SIDE = 48
IMAGES = 24
RED, GREEN = (255, 0, 0), (0, 255, 0)

CLASS_SPEC = """
dataset_config {{ target_class_mapping {{ key: "{name}" value: "{name}" }} }}
postprocessing_config {{ target_class_config {{ key: "{name}" value {{ clustering_config {{
  coverage_threshold: 0.5 dbscan_eps: 0.7 dbscan_min_samples: 0.05
  minimum_bounding_box_height: 4 }} }} }} }}
evaluation_config {{
  minimum_detection_ground_truth_overlap {{ key: "{name}" value: 0.5 }}
  evaluation_box_config {{ key: "{name}" value {{ maximum_height: 9999 maximum_width: 9999 }} }} }}
cost_function_config {{ target_classes {{ name: "{name}" class_weight: 1.0
  coverage_foreground_weight: 0.05
  objectives {{ name: "cov" initial_weight: 1.0 weight_target: 1.0 }}
  objectives {{ name: "bbox" initial_weight: 10.0 weight_target: 10.0 }} }} }}
bbox_rasterizer_config {{ target_class_config {{ key: "{name}" value {{ cov_center_x: 0.5
  cov_center_y: 0.5 cov_radius_x: 0.4 cov_radius_y: 0.4 bbox_min_radius: 1.0 }} }} }}
"""
SPEC = """
dataset_config {{
  data_sources {{ tfrecords_path: "{root}/tfrecords/set*" image_directory_path: "{root}" }}
  image_extension: "png"
  {validation}
}}
augmentation_config {{
  preprocessing {{ output_image_width: {width} output_image_height: {height}
    output_image_channel: 3 min_bbox_width: 1.0 min_bbox_height: 1.0 }}
  spatial_augmentation {{ zoom_min: 1.0 zoom_max: 1.0 }}
  color_augmentation {{}}
}}
model_config {{ num_layers: 18 use_batch_norm: true arch: "resnet"
  objective_set {{ bbox {{ scale: 35.0 offset: 0.5 }} cov {{}} }} }}
evaluation_config {{ validation_period_during_training: 1 first_validation_epoch: 1
  average_precision_mode: SAMPLE }}
cost_function_config {{ enable_autoweighting: true
  max_objective_weight: 0.9999 min_objective_weight: 0.0001 }}
training_config {{ batch_size_per_gpu: 4 num_epochs: 1
  learning_rate {{ soft_start_annealing_schedule {{ min_learning_rate: 5e-06
    max_learning_rate: 5e-04 soft_start: 0.1 annealing: 0.7 }} }}
  regularizer {{ type: L1 weight: 3e-09 }}
  optimizer {{ adam {{ epsilon: 1e-08 beta1: 0.9 beta2: 0.999 }} }}
  checkpoint_interval: 10 }}
bbox_rasterizer_config {{ deadzone_radius: 0.67 }}
"""
CONVERT = """
kitti_config {{ root_directory_path: "{root}" image_dir_name: "images" label_dir_name: "labels"
  image_extension: ".png" partition_mode: "random" num_partitions: 2 val_split: 50
  num_shards: 1 }}
image_directory_path: "{root}"
"""


def square_model(
    path: Path, *, width: int | None = WIDTH, height: int | None = HEIGHT, batch: int | None = None
) -> Path:
    """Write an ONNX that finds red (class 0) and green (class 1) squares of 48 pixels on the grid.

    Coverage of a cell is the mean colour of the 48 x 48 pixels around it, its box is always those
    pixels: a square whose corner lies on the grid is found by its middle cell with coverage near
    1 and an exact box, and by the four cells beside it with 2/3 and a box 16 pixels off; the four
    cells diagonal to it have 4/9.
    """
    near = (SIDE - STRIDE) / 2
    left = (near + 0.5) / 35
    right = (near + STRIDE - 0.5) / 35
    # The other colour counts against a class, so that grey and white are no object.
    select = np.array([[1, -1, 0], [-1, 1, 0]], np.float32).reshape(2, 3, 1, 1)
    initializers = [
        numpy_helper.from_array(select, "select"),
        numpy_helper.from_array(np.zeros((8, 2, 1, 1), np.float32), "no_weight"),
        numpy_helper.from_array(np.array([left, left, right, right] * 2, np.float32), "box"),
    ]
    nodes = [
        helper.make_node("Conv", ["input_1", "select"], ["colour"]),
        helper.make_node(
            "AveragePool",
            ["colour"],
            ["mean"],
            kernel_shape=[SIDE, SIDE],
            strides=[STRIDE, STRIDE],
            pads=[int(near)] * 4,
            count_include_pad=1,
        ),
        helper.make_node("Relu", ["mean"], ["output_cov/Sigmoid"]),
        helper.make_node("Conv", ["mean", "no_weight", "box"], ["output_bbox/BiasAdd"]),
    ]
    rows = height // STRIDE if height else "rows"
    columns = width // STRIDE if width else "columns"
    size = [batch or "N", 3, height or "H", width or "W"]
    graph = helper.make_graph(
        nodes,
        "squares",
        [helper.make_tensor_value_info("input_1", TensorProto.FLOAT, size)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [size[0], count, rows, columns])
            for name, count in (("output_bbox/BiasAdd", 8), ("output_cov/Sigmoid", 2))
        ],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 7
    onnx.save(model, path)
    return path


def picture(
    squares: list[tuple[int, int, tuple[int, int, int]]],
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
    side: int = SIDE,
) -> np.ndarray:
    """Draw squares (left, top, colour) on grey, RGB (height, width, 3) uint8."""
    image = np.full((height, width, 3), 64, np.uint8)
    for left, top, color in squares:
        image[top : top + side, left : left + side] = color
    return image


def write_clip(path: Path, pictures: list[np.ndarray], *, rate: int = 30) -> Path:
    """Encode RGB pictures nearly without loss to H.264."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "4", "preset": "ultrafast"}
        for image in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def clustering(**changes) -> dict:
    """The content of a clustering.json with the same numbers for both classes."""
    numbers = {
        "pre-cluster-threshold": 0.6,
        "post-cluster-threshold": 0.6,
        "nms-iou-threshold": 0.3,
        "topk": 50,
    }
    return {"cluster-mode": 2, "classes": {name: {**numbers, **changes} for name in CLASSES}}


@pytest.fixture(scope="session")
def synthetic() -> SimpleNamespace:
    """The functions above, for tests that need another model, picture or clip."""
    return SimpleNamespace(
        square_model=square_model,
        picture=picture,
        write_clip=write_clip,
        clustering=clustering,
        width=WIDTH,
        height=HEIGHT,
        side=SIDE,
        red=RED,
        green=GREEN,
        classes=CLASSES,
    )


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> Path:
    """The square detector's ONNX."""
    return square_model(tmp_path_factory.mktemp("model") / "model.onnx")


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Six frames: a red square moves right by 16 pixels a frame, a green one stays."""
    frames = [picture([(16 + 16 * i, 48, RED), (224, 112, GREEN)]) for i in range(6)]
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames)


@pytest.fixture
def release(tmp_path, repository, squares, clip) -> Callable[..., Path]:
    """Render and lay out a release; keywords that are not named go to Video."""

    def make(
        *,
        device: str = "local",
        settings: dict | None = None,
        model: Path = squares,
        numbers: dict | None = None,
        engine: str = "gpu",
        **video,
    ) -> Path:
        shown = {"clip": "file://clip.mp4", "width": WIDTH, "height": HEIGHT, **video}
        texts = render(
            devices.resolve(device, settings),
            engine=engine,
            model=read_model(model, "chosen", shipped="model.onnx"),
            classes=CLASSES,
            clustering=numbers or clustering(),
            video=Video(**shown),
            templates=repository / "ds_configs",
        )
        folder = tmp_path / "release"
        write_release(folder, texts, {"model.onnx": model, "clip.mp4": clip})
        return folder

    return make


@pytest.fixture(scope="session")
def labelled(tmp_path_factory, synthetic) -> Path:
    """Spec of 24 pictures with one to three squares each, half of them the validation fold."""
    root = tmp_path_factory.mktemp("labelled")
    for folder in ("images", "labels", "tfrecords"):
        (root / folder).mkdir()
    random = np.random.default_rng(3)
    cells = [(x, y) for x in range(0, 257, 64) for y in range(0, 129, 64)]
    for number in range(IMAGES):
        chosen = random.permutation(len(cells))[: 1 + number % 3]
        squares, lines = [], []
        for index in chosen:
            x, y = cells[index]
            # A square that is a little off the grid has coverage below 1, as in real life.
            x, y = x + int(random.integers(0, 4)), y + int(random.integers(0, 4))
            kind = int(random.integers(2))
            squares.append((x, y, (synthetic.red, synthetic.green)[kind]))
            box = f"{x}.00 {y}.00 {x + synthetic.side}.00 {y + synthetic.side}.00"
            lines.append(f"{synthetic.classes[kind]} 0 0 0 {box} 0 0 0 0 0 0 0\n")
        image = cv2.cvtColor(synthetic.picture(squares), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(root / f"images/{number:03d}.png"), image)
        (root / f"labels/{number:03d}.txt").write_text("".join(lines))
    (root / "convert.txt").write_text(CONVERT.format(root=root))
    arguments = ["-d", str(root / "convert.txt"), "-o", str(root / "tfrecords/set")]
    assert detectnet_v2(["dataset_convert", *arguments]) == 0
    text = SPEC.format(
        root=root, width=synthetic.width, height=synthetic.height, validation="validation_fold: 0"
    )
    text += "".join(CLASS_SPEC.format(name=name) for name in synthetic.classes)
    (root / "spec.txt").write_text(text)
    return root / "spec.txt"


@pytest.fixture
def numbers(tmp_path, synthetic) -> Path:
    """A clustering.json that suits the model."""
    path = tmp_path / "clustering.json"
    path.write_text(json.dumps(synthetic.clustering()))
    return path
