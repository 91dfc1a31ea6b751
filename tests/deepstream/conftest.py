"""A detector whose answers are known by construction, clips to run it on, and rendered releases."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import onnx
import pytest
from deepstream import devices
from deepstream.render import Video, read_model, render, write_release
from onnx import TensorProto, helper, numpy_helper

CLASSES = ["mask", "no-mask"]
WIDTH, HEIGHT, STRIDE = 320, 192, 16
SIDE = 48
RED, GREEN = (255, 0, 0), (0, 255, 0)


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
