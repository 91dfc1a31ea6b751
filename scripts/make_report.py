"""Write the report of a run: one HTML page, and its figures as SVG, PNG and CSV."""

import logging
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from report.errors import ReportError
from report.page import make_report

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def revision_of(folder: Path) -> str | None:
    """The git commit of a checkout, marked when files differ from it; None where git knows none."""
    try:
        found = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=10"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return found.stdout.strip() or None


if __name__ == "__main__":
    logging.basicConfig(
        level=logging.INFO,
        format="%(message)s",
        handlers=[logging.StreamHandler(), *(logging.FileHandler(path) for path in snakemake.log)],
    )
    page = Path(snakemake.output.html)
    try:
        make_report(
            Path(snakemake.params.results),
            snakemake.params.config,
            page,
            Path(snakemake.output.figures),
            revision_of(Path(snakemake.scriptdir)),
        )
    except ReportError as error:
        logging.error("%s", error)
        sys.exit(1)
    logging.info("%s: %.1f MB, open it in a browser", page, page.stat().st_size / 1e6)
