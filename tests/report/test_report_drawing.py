"""Style of the figures, blocks of the page, and the way of a figure into a file."""

import base64
import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from report.blocks import Missing, Note, Table, parts
from report.drawing import (
    INK,
    FigureFolder,
    canvas,
    class_colours,
    inline_svg,
    legend_below,
    place_labels,
    run_colours,
    style,
    thinned,
)
from report.errors import NotThereYet
from report.pictures import picture


def test_mask_is_green_and_no_mask_red_in_any_order():
    for classes in (["mask", "no-mask"], ["no-mask", "helmet", "mask", "visor"]):
        colours = class_colours(classes)
        red, green, _ = (int(colours["mask"][i : i + 2], 16) for i in (1, 3, 5))
        assert green > 2 * red
        red, green, _ = (int(colours["no-mask"][i : i + 2], 16) for i in (1, 3, 5))
        assert red > 2 * green
        assert len(set(colours.values())) == len(classes)


def test_unpruned_is_ink_and_the_others_differ():
    colours = run_colours(["unpruned", *(f"retrained/0.{i}" for i in range(1, 7))])
    assert colours["unpruned"] == INK
    assert len(set(colours.values())) == 7


def test_thinning_keeps_ends_and_extremes():
    x = np.arange(10_000)
    y = np.zeros(10_000)
    y[[137, 5050]] = (1, -1)
    kept_x, kept_y = thinned(x, y, 300)
    assert len(kept_x) <= 303
    assert kept_x[0] == 0
    assert kept_x[-1] == 9999
    assert {137, 5050} <= set(kept_x)
    np.testing.assert_array_equal(kept_y, y[kept_x])
    assert thinned(x[:5], y[:5])[0] is not None


def test_labels_of_close_points_do_not_cover_each_other():
    points = [(10.0, 50.0), (12.0, 50.5), (14.0, 50.0), (12.0, 49.0), (99.0, 50.0)]
    with style():
        drawing, (axes,) = canvas(3.4)
        axes.plot(*zip(*points, strict=True), "o")
        axes.set_xlim(0, 100)
        axes.set_ylim(40, 60)
        place_labels(axes, [(x, y, f"model {i}", {}) for i, (x, y) in enumerate(points)])
        drawing.canvas.draw()
        boxes = [text.get_window_extent() for text in axes.texts]
        frame = axes.get_window_extent()
    assert len(boxes) == 5
    for i, one in enumerate(boxes):
        assert frame.x0 <= one.x0
        assert one.x1 <= frame.x1
        for other in boxes[i + 1 :]:
            assert not one.overlaps(other)


def test_legend_has_each_label_once_and_breaks_into_rows():
    drawing, panels = canvas(3, 2)
    for axes in panels:
        for number in range(7):
            axes.plot([0, 1], label=f"pruned 0.{number}")
    legend_below(drawing, panels)
    assert [text.get_text() for text in drawing.legends[0].texts] == [
        f"pruned 0.{number}" for number in range(7)
    ]
    assert drawing.legends[0]._ncols == 4


def test_figure_folder_writes_three_files_and_nothing_else(tmp_path):
    drawing, (axes,) = canvas(2)
    axes.plot([1, 2], [3, 4])
    table = pd.DataFrame({"x": [1, 2], "y": [3, 4]})
    figure = FigureFolder(tmp_path / "new").keep("line", "A & B", "caption", drawing, table)
    assert {p.name for p in (tmp_path / "new").iterdir()} == {"line.svg", "line.png", "line.csv"}
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "new/line.csv"), table)
    with Image.open(tmp_path / "new/line.png") as image:
        assert image.width == 720
    assert 'aria-label="A &amp; B"' in figure.svg


def test_inline_svg_is_themed_and_its_ids_are_its_own():
    document = (
        '<?xml version="1.0"?><!DOCTYPE svg><svg width="1pt" viewBox="0 0 9 8" version="1.1">'
        '<metadata><x href="http://example.org"/></metadata><!-- note -->'
        '<defs><path id="p1"/></defs><use xlink:href="#p1" clip-path="url(#p1)" '
        f'style="fill: {INK}"/></svg>'
    )
    svg = inline_svg(document, "loss", "Loss")
    assert svg.startswith('<svg viewBox="0 0 9 8" role="img"')
    assert '<path id="loss-p1"/>' in svg
    assert 'xlink:href="#loss-p1" clip-path="url(#loss-p1)"' in svg
    assert "fill: var(--ink)" in svg
    assert "example.org" not in svg
    assert "note" not in svg


def test_table_knows_its_numbers_and_repeats():
    table = Table(
        "t", ("a", "b", "c"), [("x", "1", "u"), ("x", "−2.5", "u"), ("x", "–", "v"), ("y", "", "v")]
    )
    assert table.numeric == [False, True, False]
    assert Table("t", ("a", "b"), [("–", ""), ("", "")]).numeric == [True, False]
    assert [row[0] for row in table.shown] == ["x", "", "", "y"]
    assert [row[2] for row in table.shown] == ["u", "u", "v", "v"]


def test_table_is_wide_when_it_does_not_fit_half_the_page():
    assert not Table("t", ("a", "b"), [("x" * 500, "1")]).is_wide
    assert Table("t", tuple("abcdefgh"), [("1234567",) * 8]).is_wide


def test_missing_file_is_told_once():
    def missing():
        raise NotThereYet("a.csv", "snakemake all")

    note = Note("n", "text")
    blocks = parts(("one", missing), ("two", lambda: [note]), ("three", missing))
    assert blocks == [Missing("one", "a.csv", ("snakemake all",)), note]


@pytest.mark.parametrize("size", [(2400, 900), (300, 200)])
def test_pictures_shrink_but_never_grow(size):
    noise = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), np.uint8)
    made = picture(Image.fromarray(noise), "t", "c", 800, 60_000)
    assert made.width <= min(size[0], 800)
    assert made.height == pytest.approx(made.width * size[1] / size[0], abs=2)
    encoded = made.uri.partition(",")[2]
    assert len(encoded) * 3 / 4 <= 60_000
    buffer = io.BytesIO(base64.b64decode(encoded))
    with Image.open(buffer) as image:
        assert image.size == (made.width, made.height)
