"""The rendered specs: the recipe's values, and what NVIDIA's own protobuf modules take."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from detectnet_v2 import spec, spec_pb2
from google.protobuf import text_format
from google.protobuf.message import Message
from inference_spec import write_spec
from toolkits.table import TOOLKITS

EXPERIMENTS = (
    "unpruned/train_spec.txt",
    "retrained/0.6/train_spec.txt",
    "evaluate/fold0_spec.txt",
    "evaluate/val_spec.txt",
)
CONVERSIONS = ("tfrecords/train_spec.txt", "tfrecords/val_spec.txt")
# Where the recipe's files lie, and what only says where this project's lie.
PLACES = {
    "tfrecords_path",
    "image_directory_path",
    "root_directory_path",
    "pretrained_model_file",
    "model",
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory, repository):
    """A function that gives the results folder with all specs of a toolkit, from recipe.yaml."""
    folders = {}

    def render(toolkit):
        if toolkit not in folders:
            folder = tmp_path_factory.mktemp(toolkit)
            targets = [f"results/{name}" for name in (*EXPERIMENTS, *CONVERSIONS)]
            command = [sys.executable, "-m", "snakemake", *targets, "--cores", "1"]
            command += ["--snakefile", str(repository / "Snakefile")]
            command += ["--configfile"]
            command += [str(repository / f"config/{name}.yaml") for name in ("config", "recipe")]
            done = subprocess.run(
                [*command, "--config", f"toolkit={toolkit}"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            folders[toolkit] = folder / "results"
        return folders[toolkit]

    return render


def flat(message: Message, prefix: str = "") -> dict[str, object]:
    """Every field that is set, by its path, without what says where files lie."""
    found: dict[str, object] = {}
    for field, value in message.ListFields():
        name = f"{prefix}{field.name}"
        if field.name in PLACES:
            continue
        if field.message_type is None:
            found[name] = list(value) if field.is_repeated else value
        elif field.message_type.GetOptions().map_entry:
            for key in value:
                entry = value[key]
                inner = flat(entry, f"{name}[{key}].") if isinstance(entry, Message) else None
                found |= inner if inner is not None else {f"{name}[{key}]": entry}
        elif field.is_repeated:
            for index, item in enumerate(value):
                found |= flat(item, f"{name}[{index}].")
        else:
            found |= flat(value, f"{name}.") or {name: "is there"}
    return found


@pytest.mark.parametrize(
    ("rendered_name", "recipe_name"),
    [
        ("unpruned/train_spec.txt", "tlt2_train.txt"),
        ("retrained/0.6/train_spec.txt", "tlt2_retrain.txt"),
    ],
)
def test_recipe_config_renders_the_recipes_training_for_tlt2(
    rendered, repository, rendered_name, recipe_name
):
    ours = flat(spec.load_experiment(rendered("tlt2") / rendered_name))
    theirs = flat(spec.load_experiment(repository / "tests/detectnet_v2/specs" / recipe_name))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        same = value if isinstance(value, str) else pytest.approx(value, rel=1e-6)
        assert ours[name] == same, name


@pytest.mark.parametrize(("split", "recipe_name"), [("train", "trainval"), ("val", "val")])
def test_recipe_config_renders_the_recipes_conversion_for_tlt2(
    rendered, repository, split, recipe_name
):
    ours = flat(spec.load_dataset_export(rendered("tlt2") / f"tfrecords/{split}_spec.txt"))
    recipe = repository / f"tests/detectnet_v2/specs/tlt2_tfrecords_{recipe_name}.txt"
    assert ours == flat(spec.load_dataset_export(recipe))


@pytest.fixture
def inference(repository, tmp_path):
    """A function that renders the inference spec from config.yaml for a toolkit."""
    config = yaml.safe_load((repository / "config/config.yaml").read_text(encoding="utf-8"))
    settings = config["inference"]

    def render(name):
        toolkit = TOOLKITS[name]
        write_spec(
            repository / "specs/inference.txt",
            tmp_path / "spec.txt",
            model="model.tlt",
            network={"width": config["image_width"], "height": config["image_height"]},
            evaluation=settings
            | {
                "dbscan_eps": dict.fromkeys(config["classes"], settings["dbscan_eps"]),
                "dbscan_min_samples": toolkit.min_samples(settings["dbscan_min_samples"]),
            },
            confidences=dict.fromkeys(config["classes"], settings["confidence_threshold"]),
            confidence_in_clustering=toolkit.confidence_in_clustering,
        )
        return tmp_path / "spec.txt"

    return render


def test_default_config_renders_the_recipes_inference_for_tlt2(inference, repository):
    ours = flat(spec.load_inference(inference("tlt2")))
    recipe = repository / "tests/detectnet_v2/specs/tlt2_inference_tlt.txt"
    theirs = flat(spec.load_inference(recipe))
    looks = ("bbox_color", "batch_size", "overlay_linewidth")
    assert {name: value for name, value in ours.items() if not any(x in name for x in looks)} == {
        name: value for name, value in theirs.items() if not any(x in name for x in looks)
    }


def test_threshold_of_inference_is_where_the_dialect_has_it(inference):
    text = inference("tlt2").read_text()
    assert text.count("\n      confidence_threshold: 0.9\n") == 3
    assert "dbscan_confidence_threshold" not in text
    text = inference("tao5").read_text()
    assert text.count("\n        dbscan_confidence_threshold: 0.9\n") == 3
    assert "\n      confidence_threshold" not in text


@pytest.mark.parametrize("toolkit", ["tlt2", "tao4", "tao5"])
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_values_are_in_nvidias_ranges(rendered, toolkit, name):
    """Whose checks the native toolkit repeats."""
    experiment = spec.load_experiment(rendered(toolkit) / name)
    assert not experiment.HasField("native")


def test_native_options_are_for_the_native_toolkit(rendered):
    assert "\nnative {" in (rendered("native") / "unpruned/train_spec.txt").read_text()
    for toolkit in ("tlt2", "tao4", "tao5"):
        for name in EXPERIMENTS:
            assert "native" not in (rendered(toolkit) / name).read_text()


def test_tao_gets_whole_samples_and_a_split_that_it_does_not_refuse(rendered):
    text = (rendered("tao5") / "unpruned/train_spec.txt").read_text()
    assert "dbscan_min_samples: 1\n" in text
    assert "val_split: 0\n" in (rendered("tao5") / "tfrecords/val_spec.txt").read_text()
    assert "val_split: 100\n" in (rendered("tlt2") / "tfrecords/val_spec.txt").read_text()


@pytest.fixture
def nvidia(repository, monkeypatch):
    """A function that imports one of NVIDIA's generated protobuf modules."""
    for folder in (repository / ".venv/tao-protos", Path(sys.prefix) / "tao-protos"):
        if folder.is_dir():
            monkeypatch.syspath_prepend(str(folder))
    base = "nvidia_tao_deploy.cv.detectnet_v2.proto"
    pytest.importorskip(base, reason="make test-all installs NVIDIA's protobuf modules")
    return lambda name: importlib.import_module(f"{base}.{name}")


@pytest.mark.parametrize("toolkit", ["tao4", "tao5"])
def test_nvidias_modules_parse_what_is_rendered_and_read_the_same(
    rendered, inference, nvidia, toolkit
):
    for name in EXPERIMENTS:
        text = (rendered(toolkit) / name).read_text()
        theirs = text_format.Parse(text, nvidia("experiment_pb2").Experiment())
        ours = text_format.Parse(text, spec_pb2.Experiment())
        assert flat(theirs) == flat(ours)
        for entry in theirs.postprocessing_config.target_class_config.values():
            assert entry.clustering_config.dbscan_min_samples in (0, 1)
    text = inference(toolkit).read_text()
    theirs = text_format.Parse(text, nvidia("inference_pb2").Inference())
    assert flat(theirs) == flat(text_format.Parse(text, spec_pb2.Inference()))
    for name in CONVERSIONS:
        text = (rendered(toolkit) / name).read_text()
        config = nvidia("dataset_export_config_pb2").DatasetExportConfig()
        kitti = text_format.Parse(text, config).kitti_config
        # NVIDIA's converter asserts both.
        assert kitti.num_partitions == 2
        assert 0 <= kitti.val_split / 100 < 1


def test_nvidias_modules_refuse_the_other_dialect(rendered, nvidia):
    """Which is what makes the test above worth something."""
    for toolkit, problem in (("tlt2", "dbscan_min_samples|integer"), ("native", "native|integer")):
        text = (rendered(toolkit) / "unpruned/train_spec.txt").read_text()
        with pytest.raises(text_format.ParseError, match=f"(?i){problem}"):
            text_format.Parse(text, nvidia("experiment_pb2").Experiment())
