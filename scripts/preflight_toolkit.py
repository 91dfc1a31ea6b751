"""Stops the run with a line for each thing that the toolkit lacks, before the work begins."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from toolkits.preflight import problems
from toolkits.table import TOOLKITS

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def preflight_toolkit(
    name: str, runner: str, key_variable: str, uses_apptainer: bool, output: Path, log: Path
) -> None:
    """Write `output` when nothing is missing; else exit with the problems, which `log` has too."""
    found = problems(
        TOOLKITS[name],
        runner,
        key_variable=key_variable,
        environment=os.environ,
        uses_apptainer=uses_apptainer,
    )
    told = "\n".join(f"toolkit {name}: {problem}" for problem in found)
    log.write_text(f"{told or f'toolkit {name}: ready'}\n", encoding="utf-8")
    if found:
        sys.exit(told)
    output.write_text(f"{name} {runner}\n", encoding="utf-8")


if __name__ == "__main__":
    preflight_toolkit(
        snakemake.params.toolkit,
        snakemake.params.runner,
        snakemake.params.key_variable,
        snakemake.params.uses_apptainer,
        Path(snakemake.output[0]),
        Path(snakemake.log[0]),
    )
