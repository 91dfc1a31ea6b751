"""Bad settings stop the run with one line that names the key."""

import re
from copy import deepcopy

import pytest
import yaml
from configuration import (
    OPTIONS_OF_LAYOUTS,
    PER_CLASS_KEYS,
    ConfigError,
    check_config,
    merged,
    order_datasets,
    per_class,
    pruning_branches,
)
from datasets.layouts import LAYOUTS


@pytest.fixture(scope="module")
def schema(repository):
    return repository / "config/config.schema.yaml"


@pytest.fixture
def config(repository):
    return yaml.safe_load((repository / "config/config.yaml").read_text())


def set_key(config, dotted, value):
    *sections, key = dotted.split(".")
    for section in sections:
        config = config[section]
    config[key] = value


def test_default_config_is_valid_and_leaves_only_device_settings_to_defaults(config, schema):
    before = deepcopy(config)
    check_config(config, schema)
    for device in config["deploy"]["devices"].values():
        assert device.pop("streams") == 1
    assert config == before


def test_a_device_has_no_name_that_makes_a_rule_twice(repository, config, schema):
    """deploy_NAME and preflight_NAME become rules."""
    rules = (repository / "rules/deploy.smk").read_text()
    names = re.findall(r"^rule (?:deploy|preflight)_(\w+):", rules, re.M)
    assert sorted(names) == ["device", "local", "to_desk"]
    for name in names:
        config["deploy"]["devices"] = {name: {"host": "x", "board": "nano"}}
        with pytest.raises(ConfigError, match=f"deploy.devices: '{name}' does not match"):
            check_config(config, schema)


@pytest.mark.parametrize(
    "overlay", ["config/demo.yaml", "config/recipe.yaml", "benchmarks/real.yaml"]
)
def test_overlay_is_valid(repository, config, schema, overlay):
    check_config(merged(config, yaml.safe_load((repository / overlay).read_text())), schema)


def test_datasets_keep_the_order_of_the_settings_file(repository, config):
    before = deepcopy(config["datasets"])
    fddb = config["datasets"].pop("fddb")
    # As Snakemake has them when an overlay names two.
    config["datasets"] = {
        "fddb": {"min_aspect": 0.5} | fddb,
        "helmets": {"layout": "voc"},
        **config["datasets"],
    }
    order_datasets(config, repository / "config/config.yaml")
    assert list(config["datasets"]) == [*before, "helmets"]
    assert list(config["datasets"]["fddb"]) == [*before["fddb"], "min_aspect"]
    assert config["datasets"]["fddb"].pop("min_aspect") == 0.5
    del config["datasets"]["helmets"]
    assert config["datasets"] == before


# Of JSON Schema, what the configuration's schema uses.
KEYWORDS = {
    *("$schema", "$defs", "$ref", "title", "description", "default", "type", "enum", "const"),
    *("properties", "additionalProperties", "propertyNames", "required", "minProperties"),
    *("items", "minItems", "uniqueItems", "minLength", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    *("allOf", "oneOf", "if", "then"),
}


def subschemas(schema):
    """A schema and all within it."""
    yield schema
    below = [schema.get(key) for key in ("items", "additionalProperties", "propertyNames")]
    below += [schema.get("if"), schema.get("then")]
    below += [*schema.get("allOf", []), *schema.get("oneOf", [])]
    below += [*schema.get("properties", {}).values(), *schema.get("$defs", {}).values()]
    for part in below:
        if isinstance(part, dict):
            yield from subschemas(part)


def test_schema_holds_nothing_but_keywords(schema):
    """JSON Schema passes over other words, such as what follows a comma without quotes."""
    parts = list(subschemas(yaml.safe_load(schema.read_text())))
    assert {key for part in parts for key in part} - KEYWORDS == set()


def test_pruning_branches_are_thresholds_or_ratios():
    prune = {"thresholds": [0.7, 0.5], "mode": "independent"}
    assert pruning_branches(prune) == {"0.5": "-pth 0.5", "0.7": "-pth 0.7"}
    prune["target_ratios"] = [0.06, 0.25]
    assert pruning_branches(prune) == {
        "ratio-0.25": "--target_ratio 0.25",
        "ratio-0.06": "--target_ratio 0.06",
    }
    # Of the model before, which itself has at most a quarter of the parameters.
    prune["mode"] = "iterative"
    assert pruning_branches(prune)["ratio-0.06"] == "--target_ratio 0.24"


def test_defaults_fill_what_is_left_out(config, schema):
    del config["prune"]["granularity"]
    del config["max_bad_fraction"]
    check_config(config, schema)
    assert config["prune"]["granularity"] == 8
    assert config["max_bad_fraction"] == 0.02


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("train.epoch", 3, "train.epoch: unknown key; did you mean epochs?"),
        ("categroy_limit", 3, "categroy_limit: unknown key; did you mean category_limit?"),
        ("train.learning_rate.min", "5e-6", "is a text, not a number"),
        ("deploy.devices.nano.deepstream", 6.0, "6.0 is a number, not a text; put it in quotes"),
        ("train.epochs", 0, "train.epochs: 0 is less than the minimum of 1"),
        ("train.epochs", 2.5, "train.epochs: 2.5 is not of type 'integer'"),
        ("image_width", 961, "image_width: 961 is not a multiple of 16"),
        ("prune.thresholds", [0.1, "0.2"], "prune.thresholds.1: '0.2' is a text"),
        ("prune.thresholds", [], "prune.thresholds"),
        ("prune.thresholds", [0.1, 0.10000001], "not all different"),
        (
            "prune.target_ratios",
            [0.1, 0.10000001],
            "prune.target_ratios: ['0.1', '0.1'] are not all different",
        ),
        ("prune.target_ratios", [1.5], "prune.target_ratios.0: 1.5 is greater than or equal"),
        (
            "train.native.input_scales",
            [{"until": 0.5}],
            "train.native.input_scales.0: scale is miss",
        ),
        ("duplicates.enabled", "no", "duplicates.enabled: 'no' is not of type 'boolean'"),
        ("toolkit", "tlt9", "toolkit: 'tlt9' is not one of"),
        ("classes", ["mask", "mask"], "classes"),
        ("datasets.kaggle.class_map.mask", "masked", "datasets.kaggle.class_map.mask: 'masked'"),
        (
            "datasets.kaggle.class_map",
            {1: "mask"},
            "datasets.kaggle.class_map: YAML reads the raw class 1 as no text; put it in quotes",
        ),
        ("datasets.kaggle.class_map", {False: None}, "the raw class False as no text; put it"),
        (
            "datasets.kaggle.events",
            ["0--Parade"],
            "datasets.kaggle.events: only layout widerface reads it, and datasets.kaggle.layout is"
            " voc; take it out",
        ),
        (
            "datasets.mafa.splits.val.image_set",
            "val.txt",
            "datasets.mafa.splits.val.image_set: only layout voc reads it",
        ),
        ("datasets.kaggle.layout", "coco", "datasets.kaggle.layout: 'coco' is not one of"),
        ("train.class_weight", {"mask": 1}, "train.class_weight: one number is needed for each"),
        ("train.class_weight", "heavy", "train.class_weight"),
        ("train.learning_rate.min", 1.0, "train.learning_rate: min 1 and max 0.002: 0 < min <= "),
        ("retrain.learning_rate", {"max": 1e-9}, "retrain.learning_rate: min 2e-05 and max 1e-09"),
        ("train.augmentation.zoom_min", 1.5, "train.augmentation: zoom_min 1.5 and zoom_max 1.2: "),
        ("retrain.augmentation", {"zoom_max": 0.5}, "retrain.augmentation: zoom_min 0.8 and zoom_"),
        (
            "train.native.augmentation",
            {"scale_probability": 0.5, "scale_max": 2.0},
            "train.native.augmentation: scale_min 0 and scale_max 2: 0 < scale_min <= scale_max",
        ),
        (
            "train.native.input_scales",
            [{"until": 0.5, "scale": 0.5}, {"until": 0.5, "scale": 0.75}],
            "train.native.input_scales: until 0.5, 0.5: each must be above the one before",
        ),
        ("train.learning_rate.soft_start", 0.9, "soft_start 0.9 ends after annealing"),
        ("train.pretrained", {"source": "file"}, "train.pretrained: path is missing"),
        ("train.pretrained", {"source": "url", "url": "https://x/y.pth"}, "sha256 is missing"),
        ("train.pretrained", {"source": "ngc"}, "train.pretrained: model is missing"),
        ("train.pretrained", {"source": "ngc", "model": "resnet18"}, "train.pretrained.model"),
        ("toolkit_runner", "podman", "toolkit_runner: 'podman' is not one of"),
        ("retrain", {"epoch": 1}, "retrain.epoch: unknown key"),
        ("train.distill", {"weight": 1.0}, "set retrain.distill instead"),
        ("retrain.pretrained", {"source": "none"}, "retrain.pretrained: retraining goes on with"),
        ("retrain.num_layers", 10, "retrain.num_layers: retraining goes on with the pruned model"),
        ("deploy.devices.nano.width", 853, "deploy.devices.nano.width: 853 is not a multiple of 2"),
        (
            "deploy.devices.nano.cameras",
            {"v4l2": {"uri": "rtsp://x"}},
            "deploy.devices.nano.cameras.v4l2.uri: unknown key",
        ),
        (
            "deploy.devices.nano.cameras",
            {"rtsp": {"uri": "10.0.0.5"}},
            "deploy.devices.nano.cameras.rtsp.uri: '10.0.0.5' does not match",
        ),
        (
            "train.native.ema_decy",
            0.9,
            "train.native.ema_decy: unknown key; did you mean ema_decay",
        ),
        ("deploy.devices.nano.precision", "int4", "deploy.devices.nano.precision"),
    ],
)
def test_bad_value_is_one_line_with_the_key(config, schema, key, value, expected):
    set_key(config, key, value)
    with pytest.raises(ConfigError) as error:
        check_config(config, schema)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_every_option_of_one_layout_alone_is_refused_in_the_others():
    assert {
        option: name
        for name, layout in LAYOUTS.items()
        for option in layout.options
        if option != "min_aspect"
    } == OPTIONS_OF_LAYOUTS


def test_a_key_of_a_section_in_one_word_is_told_how_it_is_written(config, schema):
    config["train.learning_rate.max"] = 0.1
    with pytest.raises(ConfigError) as error:
        check_config(config, schema)
    assert str(error.value) == (
        "train.learning_rate.max: unknown key; a key in a section is written"
        " train: {learning_rate: {max: 0.1}}"
    )


def test_texts_of_the_command_line_are_read_where_none_is_wanted(config, schema):
    # As Snakemake has them from --config 'train={epochs: 10, ...}'.
    typed = {
        "train": {"epochs": "10", "class_weight": {"mask": "1", "no-mask": "2.5"}},
        "duplicates": {"enabled": "false"},
        "prune": {"thresholds": ["0.5", "0.6"]},
        "deploy": {"devices": {"nano": {"deepstream": "6.0", "streams": "2"}}},
    }
    config = merged(config, typed)
    check_config(config, schema, typed)
    assert (config["train"]["epochs"], config["duplicates"]["enabled"]) == (10, False)
    assert config["train"]["class_weight"] == {"mask": 1, "no-mask": 2.5}
    assert config["prune"]["thresholds"] == [0.5, 0.6]
    assert config["deploy"]["devices"]["nano"]["deepstream"] == "6.0"
    assert config["deploy"]["devices"]["nano"]["streams"] == 2


@pytest.mark.parametrize("typed", [{}, {"train": {"epochs": "ten"}}, {"prune": {"mode": "x"}}])
def test_other_texts_stay_what_they_are(config, schema, typed):
    config["train"]["epochs"] = typed.get("train", {}).get("epochs", "10")
    with pytest.raises(ConfigError, match=r"train.epochs: '(10|ten)' is"):
        check_config(config, schema, typed)


def test_weights_of_torchvision_under_nvidias_toolkit(config, schema):
    config["toolkit"] = "tlt2"
    check_config(config, schema)
    config["train"]["pretrained"] = {"source": "file", "path": "resnet18-f37072fd.pth"}
    with pytest.raises(ConfigError, match=r"train\.pretrained: .*pth is for the native toolkit"):
        check_config(config, schema)


@pytest.mark.parametrize("key", ["train.epochs", "classes", "train.augmentation.zoom_min"])
def test_missing_key_is_named(config, schema, key):
    *sections, last = key.split(".")
    section = config
    for name in sections:
        section = section[name]
    del section[last]
    with pytest.raises(ConfigError, match=f"{last} is missing"):
        check_config(config, schema)


@pytest.mark.parametrize("name", ["groups", "_faces", "wider-face"])
def test_a_dataset_whose_name_cannot_be_a_files(config, schema, name):
    config["datasets"][name] = deepcopy(config["datasets"]["kaggle"])
    with pytest.raises(ConfigError, match=f"datasets: '{name}' does not match"):
        check_config(config, schema)


def test_no_train_split(config, schema):
    for dataset in config["datasets"].values():
        dataset["splits"] = {"val": {"images": "i", "annotations": "a"}}
    with pytest.raises(ConfigError, match="none has a train split"):
        check_config(config, schema)


def test_other_classes_need_their_numbers_and_may_leave_those_of_the_default_config(config, schema):
    config["classes"] = ["helmet", "head"]
    config["datasets"] = {"own": config["datasets"]["kaggle"]}
    config["datasets"]["own"]["class_map"] = {"with_helmet": "helmet", "head": "head"}
    with pytest.raises(ConfigError, match=r"^train.class_weight, .*, evaluate.dbscan_eps: one num"):
        check_config(config, schema)
    for section, key in PER_CLASS_KEYS:
        if isinstance(config[section].get(key), dict):
            config[section][key] |= {"helmet": 1, "head": 0.5}
    check_config(config, schema)


def test_retrain_overlays_sections_but_replaces_class_maps(config):
    retrain = {"epochs": 3, "learning_rate": {"max": 1e-4}, "class_weight": 2.0}
    result = merged(config["train"], retrain)
    assert result["epochs"] == 3
    assert result["learning_rate"] == config["train"]["learning_rate"] | {"max": 1e-4}
    assert result["class_weight"] == 2.0
    assert config["train"]["epochs"] == 120


def test_per_class_spreads_a_single_number():
    assert per_class(2.0, ["a", "b"]) == {"a": 2.0, "b": 2.0}
    assert per_class({"b": 1, "a": 2}, ["a", "b"]) == {"a": 2, "b": 1}
