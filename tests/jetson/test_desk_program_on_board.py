"""The whole way with a real program: rendered configs, pushed, run by the desk's deepstream-app."""

import json
import sys
from pathlib import Path

import av
import benchmark_device as benchmark_script
import ds_config
import numpy as np
import onnx
import push as push_script
import pytest
from onnx import TensorProto, helper, numpy_helper

WIDTH, HEIGHT = 64, 32


def write_model(path: Path) -> Path:
    """Write a network with the tensors of DetectNet_v2 that finds nothing much."""
    rows, columns = HEIGHT // 16, WIDTH // 16
    nodes, outputs, weights = [], [], []
    for name, channels in (("output_bbox/BiasAdd", 8), ("output_cov/Sigmoid", 2)):
        weight = np.full((channels, 3, 16, 16), 1e-4, np.float32)
        weights.append(numpy_helper.from_array(weight, f"{name}_weight"))
        nodes.append(
            helper.make_node("Conv", ["input_1", f"{name}_weight"], [name], strides=[16, 16])
        )
        outputs.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, rows, columns])
        )
    image = helper.make_tensor_value_info("input_1", TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])
    graph = helper.make_graph(nodes, "small", [image], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    model.ir_version = 7
    onnx.save(model, path)
    return path


def write_clip(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 64, "yuv420p"
        for level in range(0, 250, 10):
            image = np.full((64, 128, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.slow
def test_desk_program_on_a_board(board, repository, tmp_path):
    board.install(
        "deepstream-app",
        f"#!/bin/sh\nPYTHONPATH='{repository}/scripts' OMP_NUM_THREADS=1 "
        f"exec '{sys.executable}' -m deepstream \"$@\"\n",
    )
    board.become("a desk")
    section = board.section(board="local", streams=2, perf_interval_s=1, duration_s=4, warm_up_s=1)
    clustering = tmp_path / "clustering.json"
    numbers = {
        "pre-cluster-threshold": 0.4,
        "post-cluster-threshold": 0.4,
        "nms-iou-threshold": 0.3,
    }
    clustering.write_text(
        json.dumps({"cluster-mode": 2, "classes": {"mask": numbers, "no-mask": numbers}})
    )
    folder = tmp_path / "rendered" / "chosen-gpu"
    ds_config.write_configs(
        folder,
        device="desk",
        settings=section,
        model="chosen",
        engine="gpu",
        classes=["mask", "no-mask"],
        onnx=write_model(tmp_path / "model.onnx"),
        clustering=clustering,
        templates=repository / "ds_configs",
        clip=write_clip(tmp_path / "clip.mp4"),
    )
    receipt = tmp_path / "receipt.json"
    push_script.push("desk", section, {"chosen-gpu": folder}, "MODEL_KEY", receipt)
    assert "chosen-gpu/clip.mp4" in {f["path"] for f in json.loads(receipt.read_text())["files"]}
    found = benchmark_script.benchmark_device(
        "desk",
        section,
        receipt,
        {},
        tmp_path / "benchmark.json",
        tmp_path / "benchmark.md",
        tmp_path / "logs",
        poll_s=0.5,
    )
    (case,) = found["cases"]
    assert len(case["fps"]["per_stream"]) == 2
    assert case["fps"]["total"] > 0 and case["fps"]["samples"] >= 2
    assert case["app_status"] == 0
    assert found["versions"]["deepstream"] == "9.1"
