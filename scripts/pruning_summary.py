"""Writes pruning.json from what NVIDIA's prune printed, and from models that can be read."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectnet_v2.errors import DetectNetError
from detectnet_v2.whole_file import write_json
from toolkits.errors import ToolkitError
from toolkits.outputs import parse_pruning_ratio

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def pruning_summary(
    text: str, before: Path, after: Path, settings: dict[str, Any]
) -> dict[str, Any]:
    """The content of pruning.json.

    `ratio` is what the toolkit printed. A plain .hdf5 adds parameters, macs and widths, before and
    after; an encrypted .tlt is opaque.

    Raises:
        ToolkitError: no ratio in the text.
        DetectNetError: a .hdf5 that is no DetectNet_v2.
    """
    summary = {"ratio": parse_pruning_ratio(text), **settings}
    if after.suffix != ".hdf5":
        return summary
    # Torch, for plain models only.
    from detectnet_v2.model import count_macs, count_parameters  # noqa: PLC0415
    from detectnet_v2.model_file import load_model  # noqa: PLC0415

    models = {"before": load_model(before), "after": load_model(after)}
    return summary | {
        "parameters": {when: count_parameters(model) for when, model in models.items()},
        "macs": {when: count_macs(model) for when, model in models.items()},
        "widths": {when: model.widths for when, model in models.items()},
    }


if __name__ == "__main__":
    try:
        content = pruning_summary(
            Path(snakemake.input.text).read_text(encoding="utf-8", errors="replace"),
            Path(snakemake.input.before),
            Path(snakemake.input.after),
            snakemake.params.settings,
        )
    except (ToolkitError, DetectNetError) as problem:
        printed = isinstance(problem, ToolkitError)
        told = f"{snakemake.input.text}: {problem}" if printed else str(problem)
        Path(snakemake.log[0]).write_text(f"{told}\n", encoding="utf-8")
        sys.exit(told)
    write_json(Path(snakemake.output[0]), content)
    Path(snakemake.log[0]).write_text(f"ratio {content['ratio']}\n", encoding="utf-8")
