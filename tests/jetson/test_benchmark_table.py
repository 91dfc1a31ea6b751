"""The table beside NVIDIA's published figures, and what is read from logs."""

from pathlib import Path

import pytest
from jetson import results, table


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
    ("lines", "expected"),
    [
        (
            "hello\nERROR: [TRT]: bad\n** ERROR: <main:658>: Failed\nApp run failed\n",
            "ERROR: [TRT]",
        ),
        ("**PERF:  1.00 (1.00)\n\n\nQuitting\nApp run failed\n", "it printed nothing"),
        ("\x1b[31mCould not open lib\x1b[0m\n", "Could not open lib"),
        ("only this\n", "only this"),
        ("", "it printed nothing"),
    ],
)
def test_cause(tmp_path: Path, lines, expected):
    log = tmp_path / "log"
    log.write_text(lines)
    assert results.cause(log).startswith(expected)
