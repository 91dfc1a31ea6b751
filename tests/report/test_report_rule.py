"""The rule's script and the captions under a real Snakemake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import Environment

FIGURES = (
    *("face_counts", "face_sizes", "face_heights_by_dataset", "kept_faces", "loss", "perf"),
    *("learning_rate", "validation", "precision_recall_mask", "tradeoff_parameters"),
    *("tradeoff_macs", "tradeoff_fps", "layer_widths"),
)
SNAKEFILE = """
configfile: "config.json"
report: "{captions}/workflow.rst"

rule make_report:
    output:
        html=report("results/report.html", caption="{captions}/page.rst", category="Report"),
        figures=report(
            directory("results/report"), patterns=["{{figure}}.svg"], category="Figures",
            caption="{captions}/figures.rst", labels={{"figure": "{{figure}}"}},
        ),
    log: "results/logs/report.log"
    params: results="results", config=config
    script: "{scripts}/make_report.py"
"""


def snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run Snakemake in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def workdir(run, repository):
    """A folder with a results folder and a workflow of the rule alone."""
    folder = run.root.parent
    scripts = repository / "scripts"
    snakefile = SNAKEFILE.format(scripts=scripts, captions=scripts / "report/captions")
    (folder / "Snakefile").write_text(snakefile)
    (folder / "config.json").write_text(json.dumps(run.config))
    return folder


@pytest.mark.slow
def test_script_and_captions_under_snakemake(workdir):
    done = snakemake(workdir, "make_report")
    assert done.returncode == 0, done.stderr[-2000:]
    log = (workdir / "results/logs/report.log").read_text()
    assert log.startswith("results/report.html: ")
    assert (workdir / "results/report/loss.svg").is_file()
    done = snakemake(workdir, "make_report", "--report", "shown.html")
    assert done.returncode == 0, done.stderr[-2000:]
    shown = (workdir / "shown.html").read_text(encoding="utf-8")
    for wanted in (
        "Training loss of each epoch",
        "Precision and recall of the class no-mask on fold 0",
        "on one page that needs nothing else",
        "ResNet 18",
    ):
        assert wanted in shown


@pytest.mark.slow
def test_damaged_file_ends_the_rule_with_one_line(workdir):
    (workdir / "results/chosen/choice.json").write_text("{")
    done = snakemake(workdir, "make_report")
    assert done.returncode == 1
    log = (workdir / "results/logs/report.log").read_text()
    assert log.count("\n") == 1
    assert "results/chosen/choice.json: no JSON" in log
    assert "Traceback" not in done.stderr.partition("RuleException")[0]
    assert not (workdir / "results/report.html").exists()


def captions(repository):
    return repository / "scripts/report/captions"


def rendered(path, **snakemake_fields):
    return Environment().from_string(path.read_text()).render(snakemake=snakemake_fields)


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_has_a_caption(repository, figure):
    text = rendered(captions(repository) / "figures.rst", wildcards={"figure": figure})
    assert not text.startswith(figure)
    assert len(text.splitlines()[0]) > 20


def test_every_caption_renders(repository, report_config):
    wildcards = {"split": "val", "dataset": "mafa", "device": "nano", "figure": "loss"}
    for path in captions(repository).glob("*.rst"):
        text = rendered(path, wildcards=wildcards, config=report_config)
        assert "{" not in text
        assert text.strip()
