"""Writes metrics.json from what NVIDIA's evaluate printed."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detectnet_v2.errors import DetectNetError
from detectnet_v2.whole_file import write_json
from toolkits.errors import ToolkitError
from toolkits.outputs import check_status, parse_evaluation

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def evaluation_metrics(
    text: str,
    classes: Sequence[str],
    *,
    model: Path,
    network: tuple[int, int, int],
    pruned: Sequence[Path] = (),
) -> dict[str, Any]:
    """The content of metrics.json: NVIDIA's figures and the model's size.

    Parameters are counted in a plain .hdf5. For an encrypted .tlt they are those of the unpruned
    network, which its layers and classes fix, times the pruning ratios on the way to this model.

    Args:
        text: what evaluate printed.
        classes: in channel order.
        model: the evaluated model file.
        network: layers, width and height of the unpruned network.
        pruned: pruning.json of every pruning on the way to this model.

    Raises:
        ToolkitError: the text is no evaluation of these classes.
        DetectNetError: a .hdf5 that is no DetectNet_v2.
    """
    figures = parse_evaluation(text, classes)
    layers, width, height = network
    # Torch, to count parameters.
    import torch  # noqa: PLC0415
    from detectnet_v2.model import DetectNetV2, count_macs, count_parameters  # noqa: PLC0415
    from detectnet_v2.model_file import load_model  # noqa: PLC0415

    if model.suffix == ".hdf5":
        loaded = load_model(model)
        size = {"parameters": count_parameters(loaded), "macs": count_macs(loaded)}
    else:
        with torch.device("meta"):
            whole = DetectNetV2(layers, len(classes), input_height=height, input_width=width)
        parameters = count_parameters(whole)
        for path in pruned:
            parameters *= json.loads(path.read_text(encoding="utf-8"))["ratio"]
        # Without its widths nobody knows a pruned model's multiplications.
        size = {"parameters": round(parameters), "macs": None if pruned else count_macs(whole)}
    return figures | {"model": size | {"input": [3, height, width]}}


if __name__ == "__main__":
    try:
        check_status(Path(snakemake.params.status), "training")
        content = evaluation_metrics(
            Path(snakemake.input.text).read_text(encoding="utf-8", errors="replace"),
            snakemake.params.classes,
            model=Path(snakemake.input.model),
            network=tuple(snakemake.params.network),
            pruned=[Path(path) for path in snakemake.input.get("pruned", [])],
        )
    except (ToolkitError, DetectNetError) as problem:
        printed = isinstance(problem, ToolkitError)
        told = f"{snakemake.input.text}: {problem}" if printed else str(problem)
        Path(snakemake.log[0]).write_text(f"{told}\n", encoding="utf-8")
        sys.exit(told)
    write_json(Path(snakemake.output[0]), content)
    Path(snakemake.log[0]).write_text(f"mAP {content['mAP']:.4f}\n", encoding="utf-8")
