"""Checks the configuration against config.schema.yaml and against itself, before any work.

Snakemake's own `validate` stops with a dump of the schema; a user needs the key, the value and the
remedy, in one line.
"""

import difflib
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from functools import reduce
from itertools import pairwise
from operator import getitem
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

PER_CLASS_KEYS = (
    ("train", "class_weight"),
    ("train", "bbox_weight_target"),
    ("train", "cov_radius"),
    ("retrain", "class_weight"),
    ("retrain", "bbox_weight_target"),
    ("retrain", "cov_radius"),
    ("evaluate", "dbscan_eps"),
)
# Options of a dataset, or of its splits, that only one layout reads.
OPTIONS_OF_LAYOUTS = {
    "events": "widerface",
    "max_faces": "widerface",
    "max_occlusion": "widerface",
    "image_set": "voc",
}


class ConfigError(ValueError):
    """A setting that the workflow cannot work with; the message is one line."""


def check_config(
    config: dict[str, Any], schema_file: Path, typed: Mapping[str, Any] | None = None
) -> None:
    """Fill in the schema's defaults, in place, and raise ConfigError at the first fault.

    The schema knows types and ranges; here are added the relations between keys: classes that the
    class maps name, one number for every class, thresholds that stay apart as folder names.

    `typed` is the part of the config that stands on the command line. Snakemake leaves everything
    inside a section there, as in `--config 'train={epochs: 10}'`, a text: where the schema wants
    none it is read as YAML.
    """
    schema = _read_yaml(schema_file)
    validator = Draft202012Validator(schema)
    errors = list(validator.iter_errors(config))
    while _read_texts(errors, config, typed or {}):
        errors = list(validator.iter_errors(config))
    errors.sort(key=lambda error: [str(part) for part in error.path])
    if errors:
        raise ConfigError(_message(errors[0]))
    _fill_defaults(schema, schema, config)
    _check_relations(config)


def merged(base: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """A copy of `base` in which `overlay`'s keys stand, sections merged key by key.

    A map from class to number is one value, not a section: it replaces the one below.
    """
    result = deepcopy(base)
    for key, value in overlay.items():
        is_section = isinstance(value, dict) and isinstance(result.get(key), dict)
        if is_section and ("train", key) not in PER_CLASS_KEYS and key != "pretrained":
            result[key] = merged(result[key], value)
        else:
            result[key] = deepcopy(value)
    return result


def order_datasets(config: dict[str, Any], settings_file: Path) -> None:
    """Put the datasets, in place, into the order of the settings file, others behind them.

    Snakemake puts first what an overlay or the command line names; the order of the datasets is the
    one in which `category_limit` fills up. Their keys follow, so that they compare alike.
    """
    settings = _read_yaml(settings_file) or {}
    config["datasets"] = _in_order_of(settings.get("datasets") or {}, config["datasets"])


def per_class(setting: float | dict[str, float], classes: list[str]) -> dict[str, float]:
    """The setting for each class: one number for all, or the map as it stands."""
    if isinstance(setting, dict):
        return {name: setting[name] for name in classes}
    return dict.fromkeys(classes, setting)


def pruning_branches(prune: dict[str, Any]) -> dict[str, str]:
    """The branches of the workflow that prune, largest model first: name to the flag of `prune`.

    `prune.target_ratios`, where there are any, replaces `prune.thresholds`. Iteratively each model
    is made from the one before, so its ratio is taken of that one's.
    """
    ratios = sorted(prune.get("target_ratios") or [], reverse=True)
    if not ratios:
        return {f"{value:g}": f"-pth {value:g}" for value in sorted(prune["thresholds"])}
    bases = [1.0] * len(ratios)
    if prune["mode"] == "iterative":
        bases = [1.0, *ratios[:-1]]
    return {
        f"ratio-{ratio:g}": f"--target_ratio {ratio / base:.6g}"
        for ratio, base in zip(ratios, bases, strict=True)
    }


def _read_yaml(path: Path) -> Any:
    # libyaml reads it seven times faster, in every plan.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(encoding="utf-8"), Loader=loader)


def _in_order_of(base: Mapping[str, Any], section: Mapping[str, Any]) -> dict[str, Any]:
    """The section with its keys, and those of its sections, in the order of `base`."""
    keys = [*(key for key in base if key in section), *(key for key in section if key not in base)]
    return {
        key: _in_order_of(base[key], section[key])
        if isinstance(section[key], dict) and isinstance(base.get(key), dict)
        else section[key]
        for key in keys
    }


def _read_texts(
    errors: list[ValidationError], config: dict[str, Any], typed: Mapping[str, Any]
) -> bool:
    """Put what YAML reads in the place of texts of the command line at fault; whether any was."""
    changed = False
    for error in map(_deepest, errors):
        path = list(error.absolute_path)
        if not isinstance(error.instance, str) or not _holds(typed, path):
            continue
        with suppress(yaml.YAMLError):
            value = yaml.safe_load(error.instance)
            if not isinstance(value, str):
                reduce(getitem, path[:-1], config)[path[-1]] = value
                changed = True
    return changed


def _holds(typed: Any, path: list[str | int]) -> bool:
    try:
        reduce(getitem, path, typed)
    except (KeyError, IndexError, TypeError):
        return False
    return bool(path)


def _message(error: ValidationError) -> str:
    error = _deepest(error)
    key = ".".join(str(part) for part in error.absolute_path) or "config"
    value = error.instance
    if error.validator == "additionalProperties":
        known = list(error.schema.get("properties", {}))
        unknown = sorted(set(value) - set(known), key=str)[0]
        section, *path = str(unknown).split(".")
        if section in known and path:
            nested = f"{section}: {{{': {'.join(path)}: {value[unknown]}{'}' * len(path)}"
            return f"{unknown}: unknown key; a key in a section is written {nested}"
        near = difflib.get_close_matches(str(unknown), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
        name = f"{key}.{unknown}" if error.absolute_path else unknown
        return f"{name}: unknown key; {remedy}"
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in value]
        return f"{key}: {missing[0]} is missing; config/config.schema.yaml describes it"
    if error.validator == "type" and isinstance(value, str) and _is_number(value):
        return (
            f"{key}: {value!r} is a text, not a number; "
            "YAML wants a point and a signed exponent, as in 5.0e-6, and no quotes"
        )
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if error.validator == "type" and error.validator_value == "string" and is_number:
        return f'{key}: {value} is a number, not a text; put it in quotes, as in "6.0.1"'
    return f"{key}: {error.message}"


def _deepest(error: ValidationError) -> ValidationError:
    """The sub-error that explains a failed oneOf: the one that got furthest into the value."""
    while error.context:
        error = max(
            error.context, key=lambda sub: (len(sub.absolute_path), sub.validator != "type")
        )
    return error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fill_defaults(schema: dict[str, Any], root: dict[str, Any], instance: dict[str, Any]) -> None:
    for key, subschema in schema.get("properties", {}).items():
        if "default" in subschema:
            instance.setdefault(key, deepcopy(subschema["default"]))
        if "$ref" in subschema:
            subschema = root["$defs"][subschema["$ref"].rsplit("/", 1)[1]]  # noqa: PLW2901
        if isinstance(instance.get(key), dict):
            _fill_defaults(subschema, root, instance[key])
            named = subschema.get("additionalProperties")
            for value in instance[key].values() if isinstance(named, dict) else ():
                if isinstance(value, dict):
                    _fill_defaults(named, root, value)


def _check_relations(config: dict[str, Any]) -> None:
    classes = config["classes"]
    for name, dataset in config["datasets"].items():
        _check_layout(name, dataset)
        for raw, mapped in dataset["class_map"].items():
            if not isinstance(raw, str):
                raise ConfigError(
                    f"datasets.{name}.class_map: YAML reads the raw class {raw!r} as no text; put "
                    "it in quotes"
                )
            if mapped is not None and mapped not in classes:
                raise ConfigError(
                    f"datasets.{name}.class_map.{raw}: {mapped!r} is not one of classes {classes}"
                )
    if not any("train" in dataset["splits"] for dataset in config["datasets"].values()):
        raise ConfigError("datasets: none has a train split; add splits.train to one of them")
    # Snakemake merges an overlay's map into that of config.yaml, so those for other classes stay.
    lacking = [
        f"{section}.{key}"
        for section, key in PER_CLASS_KEYS
        if isinstance(value := config[section].get(key), dict) and not set(classes) <= set(value)
    ]
    if lacking:
        raise ConfigError(f"{', '.join(lacking)}: one number is needed for each of {classes}")
    _check_training("train", config["train"])
    _check_training("retrain", merged(config["train"], config["retrain"]))
    _check_first_weights(config)
    if "distill" in config["train"]:
        raise ConfigError(
            "train.distill: there is no model to learn from yet; set retrain.distill instead"
        )
    _check_pruning(config)


def _check_layout(name: str, dataset: dict[str, Any]) -> None:
    sections = {f"datasets.{name}": dataset}
    sections |= {f"datasets.{name}.splits.{key}": split for key, split in dataset["splits"].items()}
    for section, settings in sections.items():
        for option, layout in OPTIONS_OF_LAYOUTS.items():
            if option in settings and dataset["layout"] != layout:
                raise ConfigError(
                    f"{section}.{option}: only layout {layout} reads it, and "
                    f"datasets.{name}.layout is {dataset['layout']}; take it out"
                )


def _check_training(section: str, training: dict[str, Any]) -> None:
    rate, native = training["learning_rate"], training.get("native", {})
    ranges = [
        ("learning_rate", rate, "min", "max"),
        ("augmentation", training["augmentation"], "zoom_min", "zoom_max"),
    ]
    own = {"scale_min": 0.0, "scale_max": 0.0} | native.get("augmentation", {})
    if own.get("scale_probability"):
        ranges.append(("native.augmentation", own, "scale_min", "scale_max"))
    for key, values, low, high in ranges:
        if not 0 < values[low] <= values[high]:
            raise ConfigError(
                f"{section}.{key}: {low} {values[low]:g} and {high} {values[high]:g}: "
                f"0 < {low} <= {high} is needed"
            )
    if rate["soft_start"] > rate["annealing"]:
        raise ConfigError(
            f"{section}.learning_rate: soft_start {rate['soft_start']:g} ends after annealing "
            f"{rate['annealing']:g} begins"
        )
    shares = [entry["until"] for entry in native.get("input_scales", [])]
    if any(second <= first for first, second in pairwise(shares)):
        raise ConfigError(
            f"{section}.native.input_scales: until {', '.join(f'{share:g}' for share in shares)}: "
            "each must be above the one before"
        )


def _check_first_weights(config: dict[str, Any]) -> None:
    for key in ("pretrained", "num_layers"):
        if key in config["retrain"]:
            raise ConfigError(
                f"retrain.{key}: retraining goes on with the pruned model and its layers; take it "
                f"out, or set train.{key}"
            )
    pretrained = config["train"]["pretrained"]
    name = pretrained.get("path") or pretrained.get("url")
    if config["toolkit"] != "native" and name and Path(name).suffix not in (".hdf5", ".tlt"):
        raise ConfigError(
            f"train.pretrained: {name} is for the native toolkit; {config['toolkit']} "
            "reads NVIDIA's .hdf5 and .tlt, such as NGC's backbone (source: ngc)"
        )


def _check_pruning(config: dict[str, Any]) -> None:
    for key in ("thresholds", "target_ratios"):
        names = [f"{value:g}" for value in config["prune"].get(key, [])]
        if len(set(names)) < len(names):
            raise ConfigError(f"prune.{key}: {names} are not all different to six digits")
    if config["prune"].get("target_ratios") and config["toolkit"] != "native":
        raise ConfigError(
            f"prune.target_ratios: only the native toolkit searches a ratio; give prune.thresholds "
            f"for {config['toolkit']}"
        )
