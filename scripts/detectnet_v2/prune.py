"""Task `prune`: remove the weakest filters of a model, group by group, as NVIDIA's prune does.

Filters are ranked by the L2 norm of their kernels, normalised within their layer. Layers that
meet at an addition keep the same channels, so their norms are combined first.
"""

import argparse
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from detectnet_v2.architecture import HEADS, Layer
from detectnet_v2.errors import DetectNetError
from detectnet_v2.model import DetectNetV2, count_macs, count_parameters
from detectnet_v2.model_file import load_model, save_model
from detectnet_v2.status import task_status
from detectnet_v2.whole_file import write_json

NORMALIZERS = ("max", "L2")
_COMBINE = {
    "union": lambda stack: stack.max(axis=0),
    "intersection": lambda stack: stack.min(axis=0),
    "arithmetic_mean": lambda stack: stack.mean(axis=0),
    "geometric_mean": lambda stack: np.prod(stack, axis=0) ** (1 / len(stack)),
}
EQUALIZATIONS = tuple(_COMBINE)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PruneSettings:
    """How to choose the filters that stay.

    `threshold` is compared with the normalised norm; at least `min_num_filters` of a layer stay,
    their number is rounded up to a multiple of `granularity`, and layers named in
    `excluded_layers` keep all their filters, as does every layer that shares an addition with one.
    """

    threshold: float = 0.1
    normalizer: str = "max"
    equalization: str = "union"
    granularity: int = 8
    min_num_filters: int = 16
    excluded_layers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise DetectNetError(f"-pth {self.threshold:g}: the threshold cannot be negative")
        if self.granularity < 1:
            raise DetectNetError(f"-pg {self.granularity}: the granularity must be at least 1")
        if self.min_num_filters < 1:
            raise DetectNetError(f"-nf {self.min_num_filters}: at least 1 filter must stay")
        if self.normalizer not in NORMALIZERS:
            raise DetectNetError(f"-n {self.normalizer}: choose from {', '.join(NORMALIZERS)}")
        if self.equalization not in _COMBINE:
            raise DetectNetError(f"-eq {self.equalization}: choose from {', '.join(_COMBINE)}")


@dataclass(frozen=True)
class Group:
    """Convolutions whose outputs have the same channels, and the statistic of each channel."""

    layers: tuple[str, ...]
    statistic: np.ndarray
    excluded: bool

    def kept(self, settings: PruneSettings, threshold: float) -> np.ndarray:
        """Ascending indices of the filters that stay."""
        depth = len(self.statistic)
        if self.excluded:
            return np.arange(depth)
        count = max(
            int(np.count_nonzero(self.statistic > threshold)),
            min(settings.min_num_filters, depth),
        )
        count = min(-(-count // settings.granularity) * settings.granularity, depth)
        strongest = np.argsort(-self.statistic, kind="stable")[:count]
        return np.sort(strongest)


def pruning_groups(model: DetectNetV2, settings: PruneSettings) -> list[Group]:
    """Partition the backbone's convolutions into groups that are pruned alike.

    Raises:
        DetectNetError: for an excluded layer that is no convolution of the model, or weights that
            are not finite.
    """
    convolutions = [layer.name for layer in model.layers if layer.kind == "conv"]
    unknown = sorted(set(settings.excluded_layers) - set(convolutions))
    if unknown:
        raise DetectNetError(
            f"-el {' '.join(unknown)}: no convolution of {model.architecture.name} has this name; "
            f"they are {', '.join(convolutions[:3])}, ..., {convolutions[-1]}"
        )
    statistics = {
        name: _statistic(model, name, settings.normalizer)
        for name in convolutions
        if name not in HEADS
    }
    groups = []
    for names in _partition(model.layers):
        stack = np.stack([statistics[name] for name in names])
        groups.append(
            Group(
                names,
                _COMBINE[settings.equalization](stack) if len(names) > 1 else stack[0],
                not set(names).isdisjoint(settings.excluded_layers),
            )
        )
    return groups


def prune(model: DetectNetV2, settings: PruneSettings) -> DetectNetV2:
    """Build the pruned network; `model` stays as it is.

    Its output equals that of `model` with every removed channel set to zero after its batch norm.

    Raises:
        DetectNetError: for an excluded layer that is no convolution of the model.
    """
    groups = pruning_groups(model, settings)
    kept = {
        name: group.kept(settings, settings.threshold) for group in groups for name in group.layers
    }
    return keep_filters(model, kept)


def keep_filters(model: DetectNetV2, kept: Mapping[str, np.ndarray]) -> DetectNetV2:
    """Build a network from some of the filters of another.

    Args:
        model: the source, unchanged.
        kept: ascending filter indices of every convolution of the backbone, by layer name.

    Returns:
        The network in evaluation mode.
    """
    pruned = _same_network(model, {name: len(indices) for name, indices in kept.items()})
    channels: dict[str, torch.Tensor] = {}
    for layer in model.layers:
        before = channels[layer.inputs[0]] if layer.inputs else torch.arange(3)
        channels[layer.name] = before
        if layer.kind not in ("conv", "batch_norm"):
            continue
        source, target = model.get_submodule(layer.name), pruned.get_submodule(layer.name)
        with torch.no_grad():
            if layer.kind == "conv":
                own = torch.from_numpy(kept.get(layer.name, np.arange(layer.filters)))
                target.weight.copy_(source.weight[own][:, before])
                target.bias.copy_(source.bias[own])
                channels[layer.name] = own
            else:
                target.eps = source.eps
                for slot in ("weight", "bias", "running_mean", "running_var"):
                    getattr(target, slot).copy_(getattr(source, slot)[before])
    return pruned.eval()


def threshold_for_ratio(model: DetectNetV2, settings: PruneSettings, ratio: float) -> float:
    """Find the smallest threshold that keeps at most `ratio` of the parameters.

    Args:
        model: the network to prune.
        settings: everything but the threshold.
        ratio: parameters after / before, in 0..1.

    Raises:
        DetectNetError: when the minimum of filters already exceeds the ratio.
    """
    if not 0 < ratio <= 1:
        raise DetectNetError(f"--target_ratio {ratio:g}: must be above 0 and at most 1")
    groups = pruning_groups(model, settings)
    # The number of filters above a threshold changes only at the statistics themselves.
    steps = np.unique(np.concatenate([[0.0], *(group.statistic for group in groups)]))
    before = count_parameters(model)
    low, high = 0, len(steps) - 1
    smallest = _parameters_at(model, groups, settings, steps[high]) / before
    if smallest > ratio:
        raise DetectNetError(
            f"--target_ratio {ratio:g} cannot be reached: with -nf {settings.min_num_filters}, "
            f"-pg {settings.granularity} and the excluded layers at least {smallest:.4f} of the "
            "parameters stay; lower -nf or -pg, or raise the ratio"
        )
    while low < high:
        middle = (low + high) // 2
        if _parameters_at(model, groups, settings, steps[middle]) <= ratio * before:
            high = middle
        else:
            low = middle + 1
    return float(steps[low])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NVIDIA's flags of `prune`, and --target_ratio of this toolkit."""
    parser.add_argument("-m", "--model", type=Path, required=True, help="model to prune (.hdf5)")
    parser.add_argument(
        "-o", "--output_file", type=Path, required=True, help="pruned model (.hdf5 is appended)"
    )
    parser.add_argument("-k", "--key", help="accepted and not needed: .hdf5 is not encrypted")
    parser.add_argument(
        "-n", "--normalizer", choices=NORMALIZERS, default="max", help="of a layer's norms (max)"
    )
    parser.add_argument(
        "-eq",
        "--equalization_criterion",
        choices=EQUALIZATIONS,
        default="union",
        help="how layers that meet at an addition agree on their filters (union)",
    )
    parser.add_argument(
        "-pg", "--pruning_granularity", type=int, default=8, help="filters go in such steps (8)"
    )
    parser.add_argument(
        "-pth",
        "--pruning_threshold",
        type=float,
        default=0.1,
        help="filters with a normalised norm above it stay (0.1)",
    )
    parser.add_argument(
        "-nf", "--min_num_filters", type=int, default=16, help="filters that a layer keeps (16)"
    )
    parser.add_argument(
        "-el", "--excluded_layers", nargs="*", default=[], help="convolutions to leave whole"
    )
    parser.add_argument(
        "--target_ratio",
        type=float,
        help="search the threshold that keeps at most this share of the parameters, "
        "instead of -pth (this toolkit only)",
    )
    parser.add_argument("--results_dir", type=Path, help="folder of pruning.json and status.json")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more")


def run(args: argparse.Namespace) -> int:
    """Prune `args.model` into `args.output_file`."""
    output = args.output_file
    if output.suffix != ".hdf5":
        output = output.with_name(f"{output.name}.hdf5")
    with task_status(args.results_dir, "DetectNet_v2 pruning") as status:
        settings = PruneSettings(
            args.pruning_threshold,
            args.normalizer,
            args.equalization_criterion,
            args.pruning_granularity,
            args.min_num_filters,
            tuple(args.excluded_layers),
        )
        model = load_model(args.model)
        if args.target_ratio is not None:
            threshold = threshold_for_ratio(model, settings, args.target_ratio)
            logger.info("Pruning threshold for the ratio %g: %r", args.target_ratio, threshold)
            settings = replace(settings, threshold=threshold)
        pruned = prune(model, settings)
        report = pruning_report(model, pruned, settings)
        logger.info("Pruning ratio (pruned model / original model): %s", report["ratio"])
        status.kpi = {"pruning_ratio": report["ratio"], "parameters": report["parameters"]["after"]}
        save_model(pruned, output)
        if args.results_dir is not None:
            write_json(args.results_dir / "pruning.json", report)
    return 0


def pruning_report(model: DetectNetV2, pruned: DetectNetV2, settings: PruneSettings) -> dict:
    """The content of pruning.json: sizes before and after, and the settings that led there."""
    before, after = count_parameters(model), count_parameters(pruned)
    return {
        "ratio": after / before,
        "threshold": settings.threshold,
        "normalizer": settings.normalizer,
        "equalization_criterion": settings.equalization,
        "pruning_granularity": settings.granularity,
        "min_num_filters": settings.min_num_filters,
        "excluded_layers": list(settings.excluded_layers),
        "parameters": {"before": before, "after": after},
        "macs": {"before": count_macs(model), "after": count_macs(pruned)},
        "widths": {"before": model.widths, "after": pruned.widths},
    }


def _statistic(model: DetectNetV2, name: str, normalizer: str) -> np.ndarray:
    """Normalised L2 norm of each output filter's kernel."""
    kernel = model.get_submodule(name).weight.detach().double().flatten(1)
    norms = torch.linalg.vector_norm(kernel, dim=1).numpy()
    if not np.isfinite(norms).all():
        raise DetectNetError(
            f"layer {name} has weights that are infinite or NaN: the training diverged, train "
            "again with a lower learning rate"
        )
    scale = norms.max() if normalizer == "max" else np.linalg.norm(norms) / len(norms)
    return norms / scale if scale > 0 else norms


def _partition(layers: Sequence[Layer]) -> list[tuple[str, ...]]:
    """Convolutions of the backbone, those whose outputs are added together in one tuple."""
    sources: dict[str, frozenset[str]] = {}
    groups: list[set[str]] = []
    for layer in layers:
        if layer.kind == "conv":
            sources[layer.name] = frozenset((layer.name,))
            if layer.name not in HEADS:
                groups.append({layer.name})
        else:
            sources[layer.name] = frozenset().union(*(sources[name] for name in layer.inputs))
        if layer.kind == "add":
            together = [group for group in groups if not group.isdisjoint(sources[layer.name])]
            together[0].update(*together[1:])
            groups = [group for group in groups if group not in together[1:]]
    order = {layer.name: number for number, layer in enumerate(layers)}
    return [tuple(sorted(group, key=order.__getitem__)) for group in groups]


def _parameters_at(
    model: DetectNetV2, groups: Iterable[Group], settings: PruneSettings, threshold: float
) -> int:
    widths = {
        name: len(group.kept(settings, threshold)) for group in groups for name in group.layers
    }
    with torch.device("meta"):
        return count_parameters(_same_network(model, widths))


def _same_network(model: DetectNetV2, widths: Mapping[str, int]) -> DetectNetV2:
    """A network of other widths that is otherwise built like `model`, with fresh weights."""
    architecture = model.architecture
    return DetectNetV2(
        architecture.num_layers,
        architecture.num_classes,
        widths=widths,
        use_pooling=architecture.use_pooling,
        all_projections=architecture.all_projections,
        use_batch_norm=architecture.use_batch_norm,
        input_height=model.input_height,
        input_width=model.input_width,
        class_names=model.class_names,
    )
