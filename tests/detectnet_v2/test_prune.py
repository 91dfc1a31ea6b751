"""Pruning: which filters go, that the network computes the same without them, the command line."""

import json

import numpy as np
import pytest
import torch
from detectnet_v2 import cli
from detectnet_v2.errors import DetectNetError
from detectnet_v2.model import count_macs, count_parameters
from detectnet_v2.model_file import load_model, save_model
from detectnet_v2.prune import (
    EQUALIZATIONS,
    Group,
    PruneSettings,
    keep_filters,
    prune,
    pruning_groups,
    threshold_for_ratio,
)

SMALL = {"input_height": 32, "input_width": 48}
# Fine steps, so that small differences show.
FINE = {"granularity": 1, "min_num_filters": 1}


def set_norms(model, name, norms):
    """Give the filters of a convolution these L2 norms."""
    kernel = model.get_submodule(name).weight
    with torch.no_grad():
        kernel.div_(kernel.flatten(1).norm(dim=1)[:, None, None, None])
        kernel.mul_(torch.as_tensor(norms, dtype=torch.float32)[:, None, None, None])


def count(statistic, threshold, **settings):
    group = Group(("layer",), np.asarray(statistic, dtype=float), excluded=False)
    return list(group.kept(PruneSettings(**settings), threshold))


def test_number_of_filters_is_bounded_below_and_rounded_up():
    statistic = np.linspace(1, 0.01, 100)
    assert len(count(statistic, 0.5, granularity=1, min_num_filters=1)) == 50
    assert len(count(statistic, 0.5, granularity=8, min_num_filters=1)) == 56
    assert len(count(statistic, 0.5, granularity=8, min_num_filters=70)) == 72
    assert len(count(statistic, 0.999, granularity=8, min_num_filters=16)) == 16
    assert len(count(statistic, 5, granularity=8, min_num_filters=3)) == 8
    # Rounding up cannot make filters, nor can the minimum.
    assert len(count(statistic, 0.005, granularity=64, min_num_filters=1)) == 100
    assert len(count(statistic, 5, granularity=1, min_num_filters=300)) == 100
    assert len(count(statistic, 0, granularity=8, min_num_filters=16)) == 100


def test_strongest_filters_stay_in_their_order():
    assert count([0.2, 0.9, 0.1, 1.0, 0.5], 0.45, granularity=1, min_num_filters=1) == [1, 3, 4]
    assert count([0.2, 0.9, 0.1, 1.0, 0.5], 0.45, granularity=4, min_num_filters=1) == [0, 1, 3, 4]


def test_threshold_is_exclusive():
    assert count([0.5, 1.0], 0.5, granularity=1, min_num_filters=1) == [1]


@pytest.mark.parametrize("normalizer", ["max", "L2"])
def test_statistic_is_the_normalised_norm_of_the_kernel(make_model, normalizer):
    model = make_model(10, 2, **SMALL)
    norms = np.linspace(1, 4, 64)
    set_norms(model, "conv1", norms)
    with torch.no_grad():
        model.conv1.bias.fill_(100)
        model.bn_conv1.weight.fill_(0.001)
    groups = pruning_groups(model, PruneSettings(normalizer=normalizer))
    expected = norms / 4 if normalizer == "max" else norms / np.linalg.norm(norms) * 64
    assert groups[0].layers == ("conv1",)
    np.testing.assert_allclose(groups[0].statistic, expected, rtol=1e-5)


def test_layer_without_weight_keeps_the_minimum(make_model):
    model = make_model(10, 2, **SMALL)
    with torch.no_grad():
        model.conv1.weight.zero_()
    assert prune(model, PruneSettings(threshold=0.1)).widths["conv1"] == 16


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_diverged_model_is_refused(make_model, value):
    model = make_model(10, 2, **SMALL)
    with torch.no_grad():
        model.block_2a_conv_1.weight[3, 0, 0, 0] = value
    with pytest.raises(
        DetectNetError, match="block_2a_conv_1 has weights that are infinite or NaN"
    ):
        prune(model, PruneSettings())


def test_identity_shortcuts_tie_a_whole_block(make_model):
    groups = [group.layers for group in pruning_groups(make_model(18, 2), PruneSettings())]
    assert groups[:4] == [
        ("conv1",),
        ("block_1a_conv_1",),
        ("block_1a_conv_2", "block_1a_conv_shortcut", "block_1b_conv_2"),
        ("block_1b_conv_1",),
    ]
    assert len(groups) == 1 + 4 * 3
    assert sum(map(len, groups)) == 1 + 16 + 4


def test_projections_tie_one_unit(make_model):
    model = make_model(18, 2, all_projections=True)
    groups = [group.layers for group in pruning_groups(model, PruneSettings())]
    assert groups[2:5] == [
        ("block_1a_conv_2", "block_1a_conv_shortcut"),
        ("block_1b_conv_1",),
        ("block_1b_conv_2", "block_1b_conv_shortcut"),
    ]
    assert len(groups) == 1 + 8 * 2


@pytest.mark.parametrize(
    ("equalization", "combined"),
    [
        ("union", [1.0, 1.0, 0.5]),
        ("intersection", [0.25, 0.5, 0.1]),
        ("arithmetic_mean", [0.625, 0.75, 0.3]),
        ("geometric_mean", [0.5, 0.5**0.5, 0.05**0.5]),
    ],
)
def test_layers_of_an_addition_agree(make_model, equalization, combined):
    model = make_model(10, 2, **SMALL)
    tail = np.full(61, 0.01)
    set_norms(model, "block_1a_conv_2", np.r_[2.0, 1.0, 1.0, tail])
    set_norms(model, "block_1a_conv_shortcut", np.r_[2.5, 10.0, 1.0, tail])
    groups = pruning_groups(model, PruneSettings(equalization=equalization))
    group = next(g for g in groups if g.layers == ("block_1a_conv_2", "block_1a_conv_shortcut"))
    np.testing.assert_allclose(group.statistic[:3], combined, rtol=1e-5)
    pruned = prune(model, PruneSettings(0.6, equalization=equalization, **FINE))
    expected = sum(value > 0.6 for value in combined) or 1
    assert pruned.widths["block_1a_conv_2"] == pruned.widths["block_1a_conv_shortcut"] == expected


def removed_set_to_zero(model, kept):
    """Silence the removed channels where they leave their convolution: its norm, if it has one."""
    for layer in model.layers:
        if layer.kind != "conv" or layer.name not in kept:
            continue
        follower = next(other for other in model.layers if layer.name in other.inputs)
        name = follower.name if follower.kind == "batch_norm" else layer.name
        gone = np.setdiff1d(np.arange(layer.filters), kept[layer.name])
        module = model.get_submodule(name)
        with torch.no_grad():
            module.weight[gone] = 0
            module.bias[gone] = 0


@pytest.mark.parametrize("equalization", EQUALIZATIONS)
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 18},
        {"num_layers": 18, "all_projections": True},
        {"num_layers": 18, "use_pooling": True},
        {"num_layers": 10, "use_batch_norm": False},
        {"num_layers": 50},
    ],
)
def test_pruned_network_computes_what_the_silenced_one_does(make_model, options, equalization):
    model = make_model(num_classes=2, **options, **SMALL)
    settings = PruneSettings(0.75, equalization=equalization, granularity=3, min_num_filters=5)
    kept = {
        name: group.kept(settings, 0.75)
        for group in pruning_groups(model, settings)
        for name in group.layers
    }
    pruned = prune(model, settings)
    assert pruned.widths == {name: len(indices) for name, indices in kept.items()}
    assert count_parameters(pruned) < 0.9 * count_parameters(model)
    removed_set_to_zero(model, kept)
    images = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        for expected, actual in zip(model(images), pruned(images), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_nothing_is_pruned_at_threshold_zero(make_model):
    model = make_model(10, 2, **SMALL)
    pruned = prune(model, PruneSettings(0))
    assert all(
        torch.equal(left, right)
        for left, right in zip(
            model.state_dict().values(), pruned.state_dict().values(), strict=True
        )
    )


def test_only_the_minimum_remains_at_a_huge_threshold(make_model):
    pruned = prune(make_model(18, 2, **SMALL), PruneSettings(1e9))
    assert set(pruned.widths.values()) == {16}
    assert pruned.output_cov.weight.shape == (2, 16, 1, 1)


def test_excluded_layer_keeps_its_whole_group(make_model):
    settings = PruneSettings(1e9, excluded_layers=("block_2a_conv_shortcut", "output_cov"))
    widths = prune(make_model(18, 2, **SMALL), settings).widths
    group = ("block_2a_conv_2", "block_2a_conv_shortcut", "block_2b_conv_2")
    assert [widths[name] for name in group] == [128] * 3
    assert widths["block_2a_conv_1"] == 16


def test_pruning_again_works_on_the_pruned_network(make_model):
    once = prune(make_model(10, 2, **SMALL), PruneSettings(0.6, **FINE))
    twice = prune(once, PruneSettings(0.8, **FINE))
    assert count_parameters(twice) < count_parameters(once)


def test_pruning_leaves_the_model_alone(make_model):
    model = make_model(10, 2, **SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prune(model, PruneSettings(0.8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_epsilon_and_names_are_kept(make_model):
    model = make_model(10, 1, class_names=["mask"], **SMALL)
    model.bn_conv1.eps = 1e-5
    pruned = keep_filters(model, {name: np.arange(n) for name, n in model.widths.items()})
    assert pruned.bn_conv1.eps == 1e-5
    assert pruned.class_names == ("mask",)


@pytest.mark.parametrize("ratio", [0.5, 0.12, 0.03])
def test_threshold_for_a_ratio_is_the_smallest_that_reaches_it(make_model, ratio):
    model = make_model(10, 2, **SMALL)
    settings = PruneSettings(granularity=8, min_num_filters=8)
    threshold = threshold_for_ratio(model, settings, ratio)

    def share(value):
        pruned = prune(model, PruneSettings(value, granularity=8, min_num_filters=8))
        return count_parameters(pruned) / count_parameters(model)

    assert share(threshold) <= ratio
    assert share(np.nextafter(threshold, 0)) > ratio


def test_ratio_of_one_prunes_nothing(make_model):
    assert threshold_for_ratio(make_model(10, 2, **SMALL), PruneSettings(), 1.0) == 0


def test_unreachable_ratio_is_refused(make_model):
    with pytest.raises(DetectNetError, match="cannot be reached"):
        threshold_for_ratio(make_model(10, 2, **SMALL), PruneSettings(), 1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threshold": -0.1}, "-pth -0.1"),
        ({"threshold": float("nan")}, "-pth nan"),
        ({"granularity": 0}, "-pg 0"),
        ({"min_num_filters": 0}, "-nf 0"),
        ({"normalizer": "L1"}, "-n L1"),
        ({"equalization": "any"}, "-eq any"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(DetectNetError, match=message):
        PruneSettings(**settings)


@pytest.fixture
def model_path(make_model, tmp_path):
    path = tmp_path / "model.hdf5"
    save_model(make_model(10, 2, class_names=["mask", "no-mask"], **SMALL), path)
    return path


def test_command_writes_model_and_report(model_path, tmp_path, capfd):
    output, results = tmp_path / "pruned", tmp_path / "results"
    arguments = ["-m", model_path, "-o", output, "-eq", "union", "-pth", "0.8", "-k", "key"]
    arguments += ["-pg", "4", "-nf", "8", "-el", "conv1", "--results_dir", results]
    assert cli.main(["prune", *map(str, arguments)]) == 0
    model, pruned = load_model(model_path), load_model(tmp_path / "pruned.hdf5")
    assert pruned.class_names == ("mask", "no-mask")
    assert pruned.widths["conv1"] == 64
    report = json.loads((results / "pruning.json").read_text())
    ratio = count_parameters(pruned) / count_parameters(model)
    assert report["ratio"] == ratio < 1
    assert report["parameters"] == {
        "before": count_parameters(model),
        "after": count_parameters(pruned),
    }
    assert report["macs"] == {"before": count_macs(model), "after": count_macs(pruned)}
    assert report["widths"] == {"before": model.widths, "after": pruned.widths}
    assert report["threshold"] == 0.8
    captured = capfd.readouterr()
    assert f"Pruning ratio (pruned model / original model): {ratio}" in captured.err
    assert "Execution status: PASS" in captured.out
    last = json.loads((results / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "SUCCESS"


def test_found_threshold_gives_the_same_model_again(model_path, tmp_path):
    common = ["prune", "-m", str(model_path)]
    searched, repeated = tmp_path / "searched.hdf5", tmp_path / "repeated.hdf5"
    results = ["--results_dir", str(tmp_path)]
    assert cli.main([*common, "-o", str(searched), "--target_ratio", "0.12", *results]) == 0
    report = json.loads((tmp_path / "pruning.json").read_text())
    assert report["ratio"] <= 0.12
    assert cli.main([*common, "-o", str(repeated), "-pth", repr(report["threshold"])]) == 0
    assert searched.read_bytes() == repeated.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-el", "block_9a_conv_1"], "-el block_9a_conv_1: no convolution"),
        (["-el", "bn_conv1"], "-el bn_conv1: no convolution"),
        (["-pth", "-1"], "-pth -1"),
        (["--target_ratio", "2"], "--target_ratio 2"),
    ],
)
def test_bad_requests_end_with_one_line(model_path, tmp_path, capfd, arguments, message):
    output = tmp_path / "pruned.hdf5"
    assert cli.main(["prune", "-m", str(model_path), "-o", str(output), *arguments]) == cli.FAILED
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert error[0].startswith(f"detectnet_v2 prune: {message}")
    assert not output.exists()


def test_missing_model_ends_with_one_line(tmp_path, capfd):
    arguments = ["-m", str(tmp_path / "absent.hdf5"), "-o", str(tmp_path / "pruned.hdf5")]
    assert cli.main(["prune", *arguments]) == cli.FAILED
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert "no model file at" in error[0]
