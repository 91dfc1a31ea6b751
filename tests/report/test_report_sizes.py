"""Sizes of the faces, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
from report.results import Results
from report.sections import sizes


def test_sizes_are_shares_of_the_image(run):
    faces = sizes.read_faces(Results(run.root, run.config))
    selection = pd.read_csv(run.root / "selection/train.csv")
    first = selection.iloc[0]
    assert faces["height"].iloc[0] == pytest.approx((first.y2 - first.y1) / 453)
    assert faces["width"].iloc[0] == pytest.approx((first.x2 - first.x1) / 800)


def test_bins_hold_every_size():
    heights = pd.Series([4.0, 20.0, 64.0])
    edges = sizes.size_bins(heights)
    assert np.histogram(heights, edges)[0].sum() == 3
    assert edges[0] == 4
    np.testing.assert_allclose(np.diff(np.log2(edges)), 0.25)
    faces = pd.DataFrame({"split": "train", "class": "mask", "height": heights})
    assert sizes.histogram(faces, ["split", "class"], "height")["faces"].sum() == 3


def test_small_faces_are_counted_in_the_caption(run, folder):
    least = {"minimum_width": 30, "minimum_height": 20}
    config = run.config | {"evaluate": run.config["evaluate"] | least}
    rows = pd.read_csv(run.root / "selection/train.csv").assign(
        **{"class": "mask", "width": 640, "height": 352, "x1": 0, "y1": 0, "x2": 80, "y2": 80}
    )
    # At half the size, as the network sees them: just large enough, too low, too narrow, both.
    for row, (x2, y2) in enumerate([(60, 40), (60, 39), (59, 40), (59, 39)]):
        rows.loc[row, ["x2", "y2"]] = (x2, y2)
    rows[:4].to_csv(run.root / "selection/train.csv", index=False)
    rows[4:8].to_csv(run.root / "selection/val.csv", index=False)
    (figure, _) = sizes.size_blocks(Results(run.root, config), folder)
    assert figure.caption.startswith(
        "37.5% of the faces are lower than 20 px or narrower than 30 px, which evaluation"
    )
    table = pd.read_csv(folder.path / "face_sizes.csv")
    assert table.groupby("side")["faces"].sum().to_dict() == {"height": 8, "width": 8}
    assert "evaluated from 30 px" in figure.svg
