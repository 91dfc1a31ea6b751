"""What the chapters say and draw, against numbers worked out by hand."""

import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from report.drawing import class_colours, style
from report.results import Results, run_label
from report.sections import (
    accuracy,
    data,
    deployment,
    export,
    labels,
    provenance,
    pruning,
    training,
)
from report.summary import facts

CLASSES = ["mask", "no-mask"]
COUNTS = pd.DataFrame(
    [
        ("train", "kaggle", "mask", 90, 80, 80, 50),
        ("train", "kaggle", "no-mask", 20, 20, 20, 50),
        ("train", "fddb", "mask", 0, 0, 80, 30),
        ("train", "fddb", "no-mask", 70, 60, 80, 30),
    ],
    columns=["split", "dataset", "class", "labelled", "taken", "total", "images"],
)
MODELS = pd.DataFrame(
    {
        "run": ["unpruned", "retrained/0.5", "retrained/0.6"],
        "mAP": [80.0, 81.0, 79.5],
        "parameters": [1000, 300, 120],
        "share of parameters": [1.0, 0.3, 0.12],
        "MACs": [9e9, 3e9, 2e9],
        "drop": [0.0, -1.0, 0.5],
        "AP mask": [82.0, 83.0, 81.5],
        "AP no-mask": [78.0, 79.0, 77.5],
    }
)


def results(run):
    return Results(run.root, run.config)


def block(section, title):
    return next(b for b in section.blocks if b.title.startswith(title))


def test_faces_per_class_stack_up_by_dataset():
    with style():
        axes = data.face_counts(COUNTS, CLASSES, 100).axes[0]
    colours = class_colours(CLASSES)
    green = [p for p in axes.patches if to_hex(p.get_facecolor()) == colours["mask"]]
    assert [(p.get_x(), p.get_width()) for p in green] == [(0, 80), (80, 0)]
    texts = [text.get_text() for text in axes.texts]
    assert "kaggle\n80" in texts
    assert texts.count("80") == 2
    assert "limit 100" in texts


def test_distant_limit_is_an_arrow_not_an_axis():
    axes = data.face_counts(COUNTS, CLASSES, 6000).axes[0]
    assert axes.get_xlim()[1] < 200
    assert "limit 6,000 →" in [text.get_text() for text in axes.texts]


def test_counts_table_sums_each_split():
    rows, _, sums = data.count_rows(COUNTS, CLASSES)
    assert rows == [
        ("train", "kaggle", "50", "80 of 90", "20"),
        ("train", "fddb", "30", "0", "60 of 70"),
        ("train", "all", "80", "80", "80"),
    ]
    assert sums == [2]


def test_dropped_faces_and_images_with_reasons(run):
    index = run.root / "index/val/mafa.csv"
    index.write_text(
        "image,width,height,class,x1,y1,x2,y2,dropped\n"
        "a.jpg,9,9,mask,1,1,5,5,\n"
        "a.jpg,9,9,mask,1,1,5,5,outside the image\n"
        "b.jpg,9,9,face,1,1,5,5,outside the image\n"
        "c.jpg,0,0,,,,,,truncated JPEG\n"
        "d.jpg,9,9,,,,,,\n"
    )
    table = data.read_dropped(results(run))
    mafa = table[(table["split"] == "val") & (table["dataset"] == "mafa")]
    assert mafa[["reason", "faces", "images"]].to_numpy().tolist() == [
        ["", 1, 0],
        ["outside the image", 2, 0],
        ["truncated JPEG", 0, 1],
        ["conversion: premature end of the JPEG", 0, 1],
    ]


def test_images_that_could_not_be_converted_are_told_beside_those_chosen(run, folder):
    lead = data.lead(results(run))
    assert lead.count("could not be converted") == 2
    assert lead.endswith("Of these images 2 could not be converted.")
    table = block(data.section(results(run), folder), "Images and faces taken")
    assert table.caption.endswith(
        "6 of the images could not be converted and count here all the same."
    )
    (fact, *_) = facts(results(run))
    assert fact.value == "360 images"
    assert fact.detail.endswith(" · 6 of the images not converted")
    for path in run.root.glob("kitti/*/*.manifest.csv"):
        path.write_text("name,image_sha256,label_sha256,error\na-kaggle-1,00,11,\n")
    section = data.section(results(run), folder)
    table = block(section, "Images and faces taken")
    assert "converted" not in section.lead + table.caption + facts(results(run))[0].detail


def test_many_reasons_are_summed_up(run, folder):
    lines = [f"a{i}.jpg,9,9,mask,1,1,5,5,reason {i}" for i in range(12)]
    (run.root / "index/train/kaggle.csv").write_text(
        "\n".join(["image,width,height,class,x1,y1,x2,y2,dropped", *lines]) + "\n"
    )
    rows = block(data.section(results(run), folder), "What was left out").rows
    kaggle = [row for row in rows if row[:2] == ("train", "kaggle")]
    assert len(kaggle) == data.MOST_REASONS + 1
    assert kaggle[-1][2] == "5 more reasons"
    assert kaggle[-1][3] == "4"


def test_sheets_are_shrunk_and_embedded(full_run):
    gallery = labels.section(results(full_run)).blocks[0]
    assert len(gallery.pictures) == 6
    for picture in gallery.pictures:
        assert picture.uri.startswith("data:image/jpeg;base64,")
        assert picture.width == labels.SHEET_WIDTH
        assert len(picture.uri) < 1.4 * labels.SHEET_BYTES


def test_curves_hold_every_epoch_of_every_run(full_run):
    curves, missing = training.read_curves(results(full_run))
    assert list(curves) == ["unpruned", "retrained/0.5", "retrained/0.6", "retrained/0.7"]
    assert missing == {}
    axes = training.loss(curves).axes[0]
    for line, (run, table) in zip(axes.lines, curves.items(), strict=True):
        assert line.get_label() == run_label(run)
        np.testing.assert_allclose(line.get_ydata(), table["loss"])
    assert axes.get_yscale() == "log"


def test_validation_has_a_panel_for_each_class(full_run):
    curves, _ = training.read_curves(results(full_run))
    with style():
        drawing = training.validation(curves, {"mAP": "mAP", "AP mask": "mask"})
    assert [axes.get_title(loc="left") for axes in drawing.axes] == ["mAP", "mask"]
    np.testing.assert_array_equal(drawing.axes[0].lines[0].get_xdata(), [5, 10, 15, 20, 25, 30])


def test_equal_schedules_share_a_line(full_run):
    curves, _ = training.read_curves(results(full_run))
    curves["retrained/0.5"] = curves["retrained/0.5"].assign(learning_rate=0.1)
    lines = training.learning_rate(curves).axes[0].lines
    assert [line.get_label() for line in lines] == ["unpruned, pruned 0.6, 0.7", "pruned 0.5"]


def test_a_single_epoch_is_a_dot(full_run):
    curves, _ = training.read_curves(results(full_run))
    curves["unpruned"] = curves["unpruned"].iloc[:1]
    for figure in (training.loss, training.learning_rate):
        assert [line.get_marker() for line in figure(curves).axes[0].lines][:2] == ["o", ""]


def test_training_without_any_validation(run, folder):
    for path in run.root.glob("**/training.csv"):
        pd.read_csv(path).assign(mAP=None).to_csv(path, index=False)
    section = training.section(results(run), folder)
    assert [b.title for b in section.blocks] == [
        *("Loss", "Learning rate", "How each training ended"),
    ]


def test_best_point_has_the_highest_f1():
    curve = pd.DataFrame(
        {
            "confidence": [0.9, 0.5, 0.1],
            "precision": [1.0, 0.8, 0.3],
            "recall": [0.2, 0.7, 0.9],
        }
    )
    assert accuracy.best_point(curve)["confidence"] == 0.5
    assert accuracy.best_point(curve.assign(precision=0.0)) is None
    assert accuracy.best_point(curve.iloc[:0]) is None


def test_metrics_table_marks_the_chosen_and_names_nvidia(full_run, folder):
    table = block(accuracy.section(results(full_run), folder), "Average precision")
    assert [table.rows[i][0] for i in table.marked] == ["pruned 0.6", "pruned 0.6"]
    assert table.rows[0][:5] == ("unpruned", "fold 0", "81.42", "82.92", "79.92")
    assert table.rows[-1][:5] == ("pruned (NVIDIA)", "theirs", "85.50", "86.72", "84.27")


def test_metrics_of_a_class_without_faces(run, folder):
    path = run.root / "unpruned/evaluation/fold0/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["coco"] = {"AP": None, "AP50": None, "per_class": {}}
    path.write_text(json.dumps(metrics))
    table = block(accuracy.section(results(run), folder), "Average precision")
    assert table.rows[0][5:7] == ("–", "–")


def test_a_subset_without_a_class_says_so_beside_its_mean(run, folder):
    assert accuracy.section(results(run), folder).lead.endswith("% on the val split.")
    path = run.root / "unpruned/evaluation/val/metrics.json"
    metrics = json.loads(path.read_text())
    metrics["average_precision"]["mask"] = 0.0
    metrics["faces"]["mask"] = 0
    path.write_text(json.dumps(metrics))
    section = accuracy.section(results(run), folder)
    assert "There is no face of mask in the val split, which counts as 0" in section.lead
    table = block(section, "Average precision")
    (row,) = [row for row in table.rows if row[:2] == ("unpruned", "the val split")]
    assert row[3] == "–"
    assert row[4] != "–"


def test_other_classes_are_not_laid_beside_nvidias(run, folder):
    config = run.config | {"classes": ["mask", "none"]}
    table = accuracy.metrics_table(
        {("unpruned", "fold0"): {"mAP": 1.0, "average_precision": {"mask": 1.0}}},
        Results(run.root, config),
    )
    assert len(table.rows) == 1
    assert table.rows[0][4] == "–"


def test_differences_keep_their_sign():
    assert [accuracy.signed(v) for v in (0.5, -0.354, 0.001, -0.001)] == [
        *("+0.50", "−0.35", "0.00", "0.00"),
    ]


def test_tradeoff_rings_the_chosen_and_shows_the_published():
    theirs = pruning.published_shares()
    axes = pruning.tradeoff_parameters(MODELS, "retrained/0.6", 0.6, theirs).axes[0]
    points = {tuple(xy) for line in axes.lines for xy in zip(*line.get_data(), strict=True)}
    assert {(100, 86.12), (12, 85.5), (88, 85.5)} <= points
    ring = next(line for line in axes.lines if line.get_markersize() == 15)
    np.testing.assert_allclose(ring.get_data(), [[12], [79.5]])
    texts = {text.get_text() for text in axes.texts}
    assert {"pruned 0.6, chosen", "NVIDIA, unpruned", "NVIDIA, pruned"} <= texts


def test_work_is_in_billions():
    axes = pruning.tradeoff_macs(MODELS, None, 0.6).axes[0]
    assert sorted(axes.lines[0].get_xdata()) == [2, 3, 9]


def test_models_table(full_run):
    table = pruning.models_table(MODELS, results(full_run))
    assert table.rows[2] == (
        *("pruned 0.6", "0.00", "12.0", "2.00", "79.50", "81.50", "77.50", "−0.50"),
    )
    assert table.rows[1][-1] == "+1.00"
    assert table.marked == [2]


def test_widths_of_the_chosen_threshold_are_the_bars():
    widths = pd.DataFrame(
        [("0.5", "conv1", 64, 40), ("0.5", "block", 128, 72),
         ("0.6", "conv1", 64, 24), ("0.6", "block", 128, 48)],
        columns=["threshold", "layer", "before", "after"],
    )  # fmt: skip
    axes = pruning.layer_widths(widths, "0.6").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [64, 128, 24, 48]
    assert [list(line.get_xdata()) for line in axes.lines] == [[40, 72], [40, 72]]
    shares = widths.replace({"0.5": "ratio-0.25", "0.6": "ratio-0.12"})
    axes = pruning.layer_widths(shares, "ratio-0.12").axes[0]
    names = axes.get_legend_handles_labels()[1]
    assert sorted(names) == ["before", "pruned to 0.12", "pruned to 0.25"]


def test_without_a_choice_the_widths_are_those_of_the_highest_threshold(run, folder):
    run.remove("chosen/choice.json")
    section = pruning.section(results(run), folder)
    assert block(section, "Filters per layer").caption.startswith("Bars: pruned 0.7, the small")
    assert section.lead == ""


def test_iterative_pruning_starts_from_the_widest(run):
    path = run.root / "pruned/0.6/pruning.json"
    document = json.loads(path.read_text())
    document["widths"]["before"] = {name: 32 for name in document["widths"]["before"]}
    path.write_text(json.dumps(document))
    axes = pruning.layer_widths(pruning.read_widths(results(run)), "0.6").axes[0]
    assert axes.patches[0].get_width() == 64


def test_cases_of_a_board_and_of_the_desk(full_run):
    table = deployment.cases(deployment.read_benchmarks(results(full_run)))
    assert list(table["device"]) == ["local"] * 2 + ["xavier_nx"] * 4
    board = table.iloc[3]
    assert (board["model"], board["engine"], board["published_fps"]) == ("chosen", "gpu", 279.0)
    assert board["power_w"] == pytest.approx(12.35)
    assert board["temperature_c"] == 61.5


def test_perf_lines_are_those_after_the_warm_up(full_run):
    found = deployment.read_benchmarks(results(full_run))
    samples = deployment.read_samples(results(full_run), found)
    chosen = samples[(samples["device"] == "local") & (samples["case"] == "chosen-gpu")]
    assert len(chosen) == 12
    assert (chosen["fps"] > 30).all()
    np.testing.assert_allclose(chosen["seconds"], 5.0 * np.arange(1, 13))
    middle = next(c for c in found[0]["cases"] if c["case"] == "chosen-gpu")["fps"]["total"]
    assert chosen["fps"].median() == pytest.approx(middle, abs=0.01)


def test_published_points_are_those_of_the_same_board(full_run):
    table = deployment.cases(deployment.read_benchmarks(results(full_run)))
    theirs = deployment.published_fps(table)
    assert set(theirs["board"]) == {"xavier_nx"}
    desk = deployment.published_fps(table[table["device"] == "local"])
    assert set(desk["board"]) == {"nano", "xavier_nx", "xavier"}
    axes = deployment.tradeoff_fps(table, theirs).axes[0]
    points = {tuple(xy) for line in axes.lines for xy in zip(*line.get_data(), strict=True)}
    assert {(125.36, 86.12), (279.0, 85.5), (30.31, 86.12), (116.2, 85.5)} <= points
    rings = {
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if line.get_markersize() > 12
    }
    chosen = table[table["model"] == "chosen"]
    assert len(rings) == 3
    assert rings == set(zip(chosen["fps"], chosen["mAP"], strict=True))


def test_parity_gives_equal_cases_one_row(full_run):
    table = export.parity_table(results(full_run))
    assert [row[0] for row in table.rows] == ["unpruned", "chosen"]
    assert table.rows[0][1:4] == ("81.42", "82.24", "82.22")
    assert table.rows[0][-1] == "local gpu, nano gpu, xavier_nx dla0, xavier_nx gpu"
    assert table.rows[0][6] == "−0.02"


def test_int8_beside_fp32_and_what_is_deployed(run, folder):
    for model, drop in (("unpruned", 0.4), ("chosen", 3.1)):
        figures = {"mAP": 80.0, "average_precision": {"mask": 81.0, "no-mask": 79.0}}
        found = {"fp32": figures, "int8": figures | {"mAP": 80.0 - drop}}
        found |= {"drop": drop, "passed": drop < 2}
        (run.root / f"export/{model}/int8.json").write_text(json.dumps(found))
    note = block(deployment.section(results(run), folder), "What INT8 costs")
    assert note.kind == "note"
    assert "no device in deploy.devices has precision: int8" in note.text
    config = deepcopy(run.config)
    config["deploy"]["devices"]["xavier_nx"]["precision"] = "int8"
    asked = replace(run, config=config)
    table = block(deployment.section(results(asked), folder), "What INT8 costs")
    assert table.rows == [
        ("unpruned", "80.00", "79.60", "81.00", "79.00", "−0.40", "INT8", "xavier_nx"),
        ("chosen", "80.00", "76.90", "81.00", "79.00", "−3.10", "FP16", "xavier_nx"),
    ]


def test_clustering_tables(full_run):
    effect, numbers = export.clustering_tables(results(full_run))
    assert [row[:3] for row in effect.rows[:3]] == [
        ["unpruned", "nvinfer's defaults", "71.92"],
        ["unpruned", "NMS as tuned, in the configs", "82.22"],
        ["unpruned", "DBSCAN as tuned", "81.72"],
    ]
    assert effect.marked == [1, 4]
    assert numbers.columns[2] == "pre-cluster-threshold"
    assert numbers.rows[0] == [
        *("unpruned", "mask", "0.34", "0.34", "0.45", "50", "91.00", "85.00"),
    ]


def test_benchmark_without_cases(run, folder):
    path = run.root / "deployed/xavier_nx/benchmark.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"cases": []}))
    run.remove("deployed/local/benchmark.json")
    section = deployment.section(results(run), folder)
    assert section.lead == ""
    assert not [b for b in section.blocks if b.kind == "figure"]


def test_missing_logs_leave_the_time_line_out(run, folder):
    run.remove("deployed/**/measure.log")
    section = deployment.section(results(run), folder)
    assert [b.name for b in section.blocks if b.kind == "figure"] == ["tradeoff_fps"]


def test_configuration_is_shown_without_addresses(report_config):
    shown = provenance.shown(report_config)
    assert shown["deploy"]["devices"] == {
        "xavier_nx": {"board": "xavier_nx", "cameras": {"rtsp": {"fps": 25}}},
        "nano": {"board": "nano"},
    }
    assert report_config["deploy"]["devices"]["nano"]["host"] == "192.0.2.8"


def test_running_times(full_run):
    table = provenance.running_times(results(full_run))
    assert table.rows[0] == ("unpruned", "0:07:01", "2.26")
    assert len(table.rows) == 4
