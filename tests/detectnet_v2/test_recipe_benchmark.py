"""The benchmark of training options: narrow networks, merged specs, the table."""

import importlib.util
import sys

import pytest
from detectnet_v2 import spec


@pytest.fixture(scope="module")
def recipe(repository):
    location = importlib.util.spec_from_file_location("recipe", repository / "benchmarks/recipe.py")
    module = importlib.util.module_from_spec(location)
    location.loader.exec_module(module)
    return module


@pytest.fixture
def base(small_spec):
    return spec.load_experiment(small_spec())


def test_a_narrow_network_has_a_share_of_the_filters(recipe, base):
    model = recipe.narrow_network(base, 10, 0.25, seed=3)
    assert model.widths["conv1"] == 16
    assert model.widths["block_4a_conv_2"] == 128
    assert model.class_names == ("mask", "no-mask")
    again = recipe.narrow_network(base, 10, 0.25, seed=3)
    assert all((a == b).all() for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_variant_is_merged_over_the_spec(recipe, base, tmp_path):
    base.native.input_scales.add(until=0.5, scale=0.5)
    text = "training_config { num_epochs: 9 } native { input_scales { until: 0.3 scale: 0.25 } }"
    for piece, epochs, scales in (("", 4, [(0.5, 0.5)]), (text, 9, [(0.3, 0.25)])):
        made = recipe.variant_spec(base, piece, epochs=4, seed=7, model=tmp_path / "a.hdf5")
        assert made.training_config.num_epochs == epochs
        found = [(entry.until, entry.scale) for entry in made.native.input_scales]
        assert found == [pytest.approx(pair) for pair in scales]
        assert made.random_seed == 7
        assert made.model_config.pretrained_model_file == str(tmp_path / "a.hdf5")
    assert base.random_seed == 42


def test_a_variants_lists_replace_those_of_the_spec(recipe, base, tmp_path):
    text = """
    cost_function_config { target_classes { name: "mask" class_weight: 3 } }
    dataset_config { data_sources { tfrecords_path: "other/*" image_directory_path: "." } }
    bbox_rasterizer_config { target_class_config { key: "mask" value { cov_radius_x: 0.7 } } }
    """
    made = recipe.variant_spec(base, text, epochs=4, seed=7, model=tmp_path / "a.hdf5")
    classes = made.cost_function_config.target_classes
    assert [(target.name, target.class_weight) for target in classes] == [("mask", 3)]
    assert [source.tfrecords_path for source in made.dataset_config.data_sources] == ["other/*"]
    assert set(made.bbox_rasterizer_config.target_class_config) == {"mask", "no-mask"}
    assert made.bbox_rasterizer_config.target_class_config["mask"].cov_radius_x == pytest.approx(
        0.7
    )


def test_seeds_of_a_variant_are_compared_with_the_base(recipe, base, tmp_path, monkeypatch, capsys):
    seen = []

    def train(experiment, folder):
        seen.append((folder.name, experiment.random_seed, experiment.native.weight_decay))
        value = experiment.random_seed + 10 * bool(experiment.native.weight_decay)
        return {"mAP": value, "AP mask": value, "seconds": 2.0}

    monkeypatch.setattr(recipe, "train", train)
    path = tmp_path / "spec.txt"
    arguments = ["recipe", str(path), "--variant", "decay=native { weight_decay: 0.5 }"]
    arguments += ["--seeds", "1", "3", "--output", str(tmp_path / "runs")]
    monkeypatch.setattr(sys, "argv", arguments)
    recipe.main()
    assert seen == [("base-1", 1, 0), ("decay-1", 1, 0.5), ("base-3", 3, 0), ("decay-3", 3, 0.5)]
    lines = capsys.readouterr().out.splitlines()
    assert "| base | 2.00 | +0.00 | 1.0, 3.0 | 2.0 | 1.00 |" in lines
    assert "| decay | 12.00 | +10.00 | 11.0, 13.0 | 12.0 | 1.00 |" in lines
