"""Puts the chapters together: one HTML page that needs nothing else, and a folder of figures."""

import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from report import summary
from report.blocks import Section
from report.drawing import FigureFolder, style
from report.results import Results
from report.sections import (
    accuracy,
    data,
    deployment,
    examples,
    labels,
    provenance,
    pruning,
    training,
)

TEMPLATES = Path(__file__).parent / "templates"


def make_report(
    results_dir: Path,
    config: Mapping[str, Any],
    html: Path,
    figures: Path,
    revision: str | None = None,
) -> None:
    """Write the page and the figures of a run.

    Args:
        results_dir: the results folder; what is not there is left out, with a line that says so.
        config: the workflow's configuration, defaults filled in.
        html: the page.
        figures: folder for each figure as SVG, PNG and CSV.
        revision: of the workflow's code.

    Raises:
        ReportError: a results file is damaged.
    """
    results = Results(Path(results_dir), config)
    with style():
        sections = chapters(results, FigureFolder(Path(figures)), revision)
    text = render(sections, results)
    html = Path(html)
    html.parent.mkdir(parents=True, exist_ok=True)
    part = html.with_name(html.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, html)


def chapters(results: Results, folder: FigureFolder, revision: str | None) -> list[Section]:
    """The chapters in the order of the page."""
    return [
        data.section(results, folder),
        labels.section(results),
        training.section(results, folder),
        accuracy.section(results, folder),
        pruning.section(results, folder),
        examples.section(results, folder),
        deployment.section(results, folder),
        provenance.section(results, revision),
    ]


def render(sections: list[Section], results: Results) -> str:
    """The page's text."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        sections=sections,
        facts=summary.facts(results),
        classes=results.classes,
        toolkit=results.config["toolkit"],
        network=results.network,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        css=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )
