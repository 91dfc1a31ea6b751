"""The table beside NVIDIA's published figures, and what is read from logs."""

from pathlib import Path

import pytest
from jetson import results, table
from jetson.cases import Case


def benchmark(device, board, figures, **map_percent):
    return {
        "device": device,
        "versions": {
            "board": board,
            "model": f"a {device}",
            "deepstream": "6.3",
            "tensorrt": "8.5",
        },
        "settings": {"nvpmodel": 8, "jetson_clocks": True},
        "map_percent": map_percent,
        "cases": [
            {
                "model": model,
                "engine": engine,
                "precision": "int8",
                "streams": 1,
                "batch": 1,
                "fps": {"total": fps, "samples": 12},
            }
            for (model, engine), fps in figures.items()
        ],
    }


def test_table():
    nano = benchmark("nano", "nano", {("chosen", "gpu"): 20.5, ("unpruned", "gpu"): 6.0}, chosen=85)
    nx = benchmark(
        "lab",
        "xavier_nx",
        {("chosen", "gpu"): 280, ("chosen", "dla0"): 110.25},
        chosen=85,
        unpruned=86.5,
    )
    assert table.table([nano, nx]).splitlines()[:6] == [
        "| model               | pruned | mAP % | nano GPU FPS | lab GPU FPS | lab DLA0 FPS |",
        "| ------------------- | -----: | ----: | -----------: | ----------: | -----------: |",
        "| unpruned            |     no | 86.50 |         6.00 |             |              |",
        "| chosen              |    yes | 85.00 |        20.50 |      280.00 |       110.25 |",
        "| NVIDIA's, published |     no | 86.12 |         6.50 |      125.36 |        30.31 |",
        "| NVIDIA's, published |    yes | 85.50 |        21.25 |      279.00 |       116.20 |",
    ]
    notes = table.table([nano, nx])
    assert "nano: a nano, DeepStream 6.3, TensorRT 8.5, INT8, 1 stream(s), batch 1" in notes
    assert "power nvpmodel 8, jetson_clocks" in notes
    assert "they were not measured here" in notes
    assert "mAP is the toolkit's own, of the model in FP32" in notes


def test_board_without_published_figures():
    orin = benchmark("orin", "orin", {("chosen", "gpu"): 700.0})
    text = table.table([orin])
    assert "NVIDIA published no figure for these boards" in text
    assert "not measured here" not in text


@pytest.mark.parametrize(
    ("board", "model", "engine", "expected"),
    [
        ("nano", "unpruned", "gpu", 6.5),
        ("nano", "chosen", "gpu", 21.25),
        ("nano", "chosen", "dla0", None),
        ("xavier_nx", "unpruned", "dla1", 30.31),
        ("xavier", "chosen", "gpu", 508.32),
        ("xavier", "chosen", "dla0", 155.5),
        ("orin", "chosen", "gpu", None),
        (None, "chosen", "gpu", None),
    ],
)
def test_published_figures(board, model, engine, expected):
    assert table.published(board, model, engine) == expected


@pytest.mark.parametrize(
    ("marks", "expected"),
    [
        ("built_engine={fp16}\nengine_file={fp16}", "fp16"),
        ("engine_file={fp16}", "fp16"),
        ("engine_file={fp16}\nengine_file={int8}", "int8"),
        # The cached one was not taken.
        ("engine_file={fp16}\nengine_file={int8}\nbuilt_engine={fp16}", "fp16"),
        ("", "int8"),
        ("engine_file=somebody's.engine", "int8"),
    ],
)
def test_precision_that_ran(tmp_path: Path, marks, expected):
    names = {p: f"model.onnx_b1_dla0_{p}.engine" for p in ("fp16", "int8")}
    log = "**PERF:  9.00 (9.00)\t\n"
    (tmp_path / "measure.log").write_text(log)
    (tmp_path / "result").write_text(
        "phase=measure\nmeasure_verdict=complete\nmeasure_status=0\nwarm_log=0\nwarm_uptime=1\n"
        f"end_uptime=5\nend_log={len(log)}\n{marks.format(**names)}\n"
    )
    case = Case(
        *("a-dla0", "a", "dla0", "a-dla0/app.txt", "a-dla0/infer.txt", "a-dla0/model.onnx"),
        *("int8", 1, 1, 5, "0" * 64, "1" * 64),
    )
    found = results.read(case, tmp_path)
    assert (found["precision"], found["asked_precision"]) == (expected, "int8")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            "hello\nERROR: [TRT]: bad\n** ERROR: <main:658>: Failed\nApp run failed\n",
            "ERROR: [TRT]",
        ),
        ("**PERF:  1.00 (1.00)\n\n\nQuitting\nApp run failed\n", "it printed nothing"),
        ("\x1b[31mCould not open lib\x1b[0m\n", "Could not open lib"),
        (
            "nvbuf_utils: Could not get EGL display connection\n"
            "WARNING: Deserialize engine failed because file path: /x.engine open error\n"
            "WARNING: deserialize backend context from engine from file :/x.engine failed\n"
            "Unable to open the library\nERROR: [TRT]: bad\n",
            "ERROR: [TRT]: bad",
        ),
        ("only this\n", "only this"),
        ("", "it printed nothing"),
    ],
)
def test_cause(tmp_path: Path, lines, expected):
    log = tmp_path / "log"
    log.write_text(lines)
    assert results.cause(log).startswith(expected)
