"""The page as a whole: self-contained, well-formed, complete, and honest about what is missing."""

import copy
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module

import pandas as pd
import pytest
from make_report import revision_of
from report.blocks import Missing, Note
from report.drawing import FigureFolder, style
from report.errors import ReportError
from report.page import make_report
from report.results import Results
from report.summary import facts
from toolkits.table import UFF

VOID = {"meta", "link", "img", "br", "hr", "input"}
FIGURES = {
    *("face_counts", "face_sizes", "face_heights_by_dataset", "kept_faces"),
    *("loss", "learning_rate", "validation", "precision_recall_mask", "precision_recall_no-mask"),
    *("tradeoff_parameters", "tradeoff_macs", "tradeoff_fps", "layer_widths", "perf"),
}


class Page(HTMLParser):
    """Collects tags, ids and references; records tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                self.references.append(value)
            if name == "style" and value:
                self.references += re.findall(r"url\(([^)]*)\)", value)

    def handle_endtag(self, tag):
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]} at {self.getpos()}")
        else:
            self.open.pop()


@pytest.fixture(scope="module")
def report(full_run, tmp_path_factory):
    """The page of a complete run, parsed, its text and its folder of figures."""
    folder = tmp_path_factory.mktemp("report")
    make_report(full_run.root, full_run.config, folder / "report.html", folder / "report", "1a2b3c")
    text = (folder / "report.html").read_text(encoding="utf-8")
    return Page(text), text, folder / "report"


def section_of(run, tmp_path, name):
    results, folder = Results(run.root, run.config), FigureFolder(tmp_path / "figures")
    module = import_module(f"report.sections.{name}")
    with style():
        return module.section(results) if name == "labels" else module.section(results, folder)


def missing_lines(section):
    return [block for block in section.blocks if isinstance(block, Missing)]


def test_page_is_well_formed(report):
    page, _, _ = report
    assert page.faults == []
    assert len(page.ids) == len(set(page.ids))


def test_page_needs_nothing_from_outside(report):
    page, text, _ = report
    targets = {f"#{name}" for name in page.ids}
    for reference in page.references:
        assert reference.startswith("data:") or reference in targets, reference[:80]
    css = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "@import" not in css
    assert "url(" not in css
    assert "script" not in page.tags
    # Names of XML namespaces are no addresses that a browser visits.
    addresses = set(re.findall(r"https?://[^\s\"'<)]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_page_is_small_enough_to_mail(report):
    _, text, _ = report
    assert len(text.encode()) < 6_000_000


def test_every_figure_is_there_as_svg_png_and_csv(report):
    page, _, folder = report
    for suffix in ("svg", "png", "csv"):
        assert {path.stem for path in folder.glob(f"*.{suffix}")} - {"examples"} == FIGURES
    assert page.tags.count("svg") == len(FIGURES)
    for path in folder.glob("*.svg"):
        assert ET.parse(path).getroot().tag.endswith("svg")
    assert not list(folder.glob("*.part"))


def test_complete_run_misses_only_what_was_not_measured(report):
    _, text, _ = report
    assert re.findall(r"<code>([^<]*)</code>", text) == ["snakemake deploy_nano"]


def test_a_run_of_nvidias_promises_nothing_that_no_rule_makes(run, tmp_path):
    run.remove("**/training.csv", "**/detections.csv", "**/precision_recall.csv")
    run.remove("deployed/*/benchmark.json", "deepstream/*/*/parity.json", "export/*/*.json")
    config = copy.deepcopy(run.config) | {"toolkit": "tlt2"}
    nvidias = replace(run, config=config)
    chapters = ("training", "accuracy", "examples", "deployment")
    blocks = [b for name in chapters for b in section_of(nvidias, tmp_path, name).blocks]
    assert not [block for block in blocks if isinstance(block, Missing)]
    reason = f"Not with the toolkit tlt2: {UFF}."
    assert [(block.title, block.text) for block in blocks if isinstance(block, Note)] == [
        ("Loss, learning rate and mAP curves", "The toolkit tlt2 writes no training.csv."),
        ("Best and worst images", "The toolkit tlt2 writes no detections.csv."),
        ("Accuracy through the DeepStream configs", reason),
        ("Speed on this computer", reason),
        ("Speed on the devices", reason),
    ]
    speed = facts(Results(run.root, config))[-1]
    assert (speed.value, speed.detail) == ("–", "not with tlt2")
    # With NVIDIA's codec its models can be exported after all.
    config["export"]["accept_nvidia_eff_licence"] = True
    told = missing_lines(section_of(nvidias, tmp_path, "deployment"))
    assert {line.path for line in told} >= {
        "deepstream/…/parity.json",
        "deployed/local/benchmark.json",
    }


def test_page_keeps_addresses_of_devices_to_itself(report):
    _, text, _ = report
    assert "xavier_nx" in text
    assert "192.0.2." not in text
    assert "somebody" not in text
    assert "secret" not in text
    assert "rtsp:" in text


def test_page_tells_versions_seeds_and_revision(report):
    _, text, _ = report
    for wanted in ("1a2b3c", "onnxruntime", "train.seed", "42", "max_map_drop: 0.6"):
        assert wanted in text


def test_same_results_give_the_same_figures(run, tmp_path):
    for name in ("one", "two"):
        section_of(run, tmp_path / name, "pruning")
    drawn = list((tmp_path / "one/figures").glob("*.svg"))
    assert len(drawn) == 3
    for path in drawn:
        assert path.read_bytes() == (tmp_path / "two/figures" / path.name).read_bytes()


def test_empty_results_folder_gives_a_page_that_says_what_to_run(report_config, tmp_path):
    (tmp_path / "results").mkdir()
    make_report(tmp_path / "results", report_config, tmp_path / "r.html", tmp_path / "figures")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.faults == []
    assert "svg" not in page.tags
    assert not (tmp_path / "figures").exists()
    commands = set(re.findall(r"<code>([^<]*)</code>", text))
    wanted = {"all", "check_labels", "deploy_local", "deploy_nano", "deploy_xavier_nx"}
    assert commands == {f"snakemake {name}" for name in wanted}


@pytest.mark.parametrize(
    ("removed", "section", "path", "command"),
    [
        ("selection/val.counts.csv", "data", "selection/val.counts.csv", "all"),
        ("selection/train.csv", "data", "selection/train.csv", "all"),
        ("index/train/fddb.csv", "data", "index/train/fddb.csv", "all"),
        ("check_labels/val/mafa.jpg", "labels", "check_labels/val/mafa.jpg", "check_labels"),
        ("retrained/0.6/training.csv", "training", "retrained/0.6/training.csv", "all"),
        (
            "retrained/0.7/evaluation/val/metrics.json",
            "accuracy",
            "retrained/0.7/evaluation/val/metrics.json",
            "all",
        ),
        ("chosen/models.csv", "pruning", "chosen/models.csv", "all"),
        (
            "retrained/0.6/evaluation/fold0/detections.csv",
            "examples",
            "retrained/0.6/evaluation/fold0/detections.csv",
            "all",
        ),
        ("tfrecords/train/*", "examples", "tfrecords/train", "all"),
        ("deepstream/*/*/parity.json", "deployment", "deepstream/…/parity.json", "all"),
        ("export/*/clustering.json", "deployment", "export/…/clustering.json", "all"),
        ("deployed/local/benchmark.json", "deployment", "deployed/local", "deploy_local"),
    ],
)
def test_missing_part_becomes_a_line(run, tmp_path, removed, section, path, command):
    run.remove(removed)
    lines = [
        line
        for line in missing_lines(section_of(run, tmp_path, section))
        if line.commands != ("snakemake deploy_nano",)
    ]
    assert len(lines) == 1
    assert lines[0].path.startswith(path)
    assert f"snakemake {command}" in lines[0].commands


def test_several_missing_files_share_a_line(run, tmp_path):
    run.remove("*/evaluation/*/metrics.json", "check_labels/*/*.jpg")
    make_report(run.root, run.config, tmp_path / "r.html", tmp_path / "figures")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "metrics.json and 1 more are not there yet" in text
    assert "kaggle.jpg and 5 more are not there yet" in text


def test_other_trainings_are_shown_while_one_is_missing(run, tmp_path):
    run.remove("retrained/0.6/training.csv")
    section = section_of(run, tmp_path, "training")
    assert [block.name for block in section.blocks if block.kind == "figure"] == [
        *("loss", "learning_rate", "validation"),
    ]


@pytest.mark.parametrize(
    ("path", "content", "message", "section"),
    [
        ("unpruned/training.csv", "epoch,los\n1,2\n", "has no column 'loss'", "training"),
        ("unpruned/training.csv", "", "no CSV table", "training"),
        ("chosen/choice.json", "{", "no JSON", "pruning"),
        ("chosen/choice.json", '{"run": "unpruned"}', "has no 'reason'", "pruning"),
        ("pruned/0.5/pruning.json", "{}", "has no 'ratio'", "pruning"),
        ("deployed/local/benchmark.json", "{}", "has no 'cases'", "deployment"),
        ("chosen/choice.json", "[]", "no JSON object", "pruning"),
        ("check_labels/train/mafa.jpg", "nothing", "is no image", "labels"),
    ],
)
def test_damaged_file_is_one_line_with_file_and_remedy(
    run, tmp_path, path, content, message, section
):
    (run.root / path).write_text(content)
    with pytest.raises(ReportError) as caught:
        section_of(run, tmp_path, section)
    text = str(caught.value)
    assert message in text
    assert str(run.root / path) in text
    assert "snakemake " in text
    assert "\n" not in text


def test_damaged_results_leave_the_former_page_alone(run, tmp_path):
    (tmp_path / "r.html").write_text("former")
    (run.root / "selection/train.counts.csv").write_text("dataset\nkaggle\n")
    with pytest.raises(ReportError, match="has no column 'class'"):
        make_report(run.root, run.config, tmp_path / "r.html", tmp_path / "figures")
    assert (tmp_path / "r.html").read_text() == "former"


def test_untrained_network_that_finds_nothing_still_has_a_page(run, tmp_path):
    for path in run.root.glob("**/precision_recall.csv"):
        path.write_text("class,confidence,precision,recall\n")
    for path in run.root.glob("**/detections.csv"):
        path.write_text("image,class,x1,y1,x2,y2,confidence\n")
    for path in run.root.glob("**/training.csv"):
        header, first = path.read_text().splitlines()[:2]
        path.write_text(f"{header}\n{first}\n")
    models = pd.read_csv(run.root / "chosen/models.csv").assign(mAP=0.0, drop=0.0, MACs=None)
    models.to_csv(run.root / "chosen/models.csv", index=False)
    make_report(run.root, run.config, tmp_path / "r.html", tmp_path / "figures")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.faults == []
    assert not (tmp_path / "figures/tradeoff_macs.svg").exists()


def test_other_classes_and_a_train_split_alone(run, tmp_path):
    config = copy.deepcopy(run.config)
    config["classes"] = ["worn_well", "worn_badly", "bare"]
    for dataset in config["datasets"].values():
        dataset["splits"].pop("val", None)
    config["prune"]["thresholds"] = [0.5]
    names = dict(zip(("mask", "no-mask"), config["classes"], strict=False))
    for path in [*run.root.glob("**/*.csv"), *run.root.glob("**/*.json"),
                 *run.root.glob("**/labels/*.txt")]:  # fmt: skip
        text = path.read_text()
        for old, new in reversed(names.items()):
            text = re.sub(rf"(?<![\w-]){old}(?![\w-])", new, text)
        path.write_text(text)
    make_report(run.root, config, tmp_path / "r.html", tmp_path / "figures")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert Page(text).faults == []
    assert "worn_badly" in text
    assert "pruned (NVIDIA)" not in text
    assert (tmp_path / "figures/precision_recall_bare.svg").is_file()


def test_revision_of_a_folder_without_git(tmp_path):
    assert revision_of(tmp_path) is None
