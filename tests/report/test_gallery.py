"""The README's pictures: taken from a run's files, or refused in one line."""

import shutil
import sys
from fractions import Fraction

import gallery
import numpy as np
import pytest
from detectnet_v2.video import video_writer
from PIL import Image

PAGE = """<body style="margin: 0; background: rgb(10, 200, 30)">
<div style="width: 100%; height: 50px; background: rgb(200, 10, 30)"></div></body>"""


def test_the_frame_with_most_boxes_is_shown(tmp_path):
    video, dumps = tmp_path / "video.mp4", tmp_path / "kitti"
    dumps.mkdir()
    with video_writer(video, Fraction(10)) as writer:
        for number, boxes in enumerate((0, 1, 3, 2)):
            writer.write(np.full((64, 96, 3), 60 * number, np.uint8))
            (dumps / f"00_000_{number:06d}.txt").write_text("mask 0 0\n" * boxes)
    pixels = np.asarray(gallery.busiest_frame(video, dumps))
    assert pixels.shape == (64, 96, 3)
    assert abs(pixels.mean() - 120) < 4


def test_a_run_without_a_desk_run_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "deployed/local/chosen-gpu/kitti").mkdir(parents=True)
    monkeypatch.setattr(sys, "argv", ["gallery", str(tmp_path), "--images", str(tmp_path / "out")])
    assert gallery.main() == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "snakemake deploy_local" in lines[0]


def test_a_sheet_is_cut_and_made_small(tmp_path):
    Image.new("RGB", (1800, 1034)).save(tmp_path / "sheet.jpg")
    assert gallery.sheet(tmp_path / "sheet.jpg").size == (900, 267)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, gallery.BROWSERS)), reason="needs Chromium")
@pytest.mark.parametrize("width", [400, 1400])
def test_a_view_is_as_wide_as_the_screen(tmp_path, width):
    (tmp_path / "page.html").write_text(PAGE)
    image = gallery.view(tmp_path / "page.html", width, 300)
    assert image.size == (width, 300)
    assert image.getpixel((width - 1, 20)) == (200, 10, 30)
    assert image.getpixel((width - 1, 280)) == (10, 200, 30)
