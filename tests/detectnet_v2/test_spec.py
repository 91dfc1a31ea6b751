"""Spec files of both dialects, and what is said about wrong ones."""

import shutil
import subprocess
import sys

import pytest
from detectnet_v2 import spec, spec_pb2
from detectnet_v2.errors import DetectNetError
from detectnet_v2.without_effect import REASONS, settings_without_effect


@pytest.fixture
def specs(repository):
    return repository / "tests/detectnet_v2/specs"


@pytest.fixture
def changed(specs, tmp_path):
    """A function that loads a spec with some of its text replaced."""

    def load(*replacements, name="tlt2_train.txt", loader=spec.load_experiment):
        text = (specs / name).read_text()
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / "changed.txt"
        path.write_text(text)
        return loader(path)

    return load


def problems(error):
    return [line.split("changed.txt", 1)[1].lstrip(": ") for line in str(error.value).splitlines()]


def test_the_recipes_training_specs(specs):
    train = spec.load_experiment(specs / "tlt2_train.txt")
    assert train.random_seed == 42
    assert train.dataset_config.WhichOneof("dataset_split_type") == "validation_fold"
    assert train.dataset_config.validation_fold == 0
    clustering = train.postprocessing_config.target_class_config["no-mask"].clustering_config
    assert clustering.dbscan_min_samples == pytest.approx(0.05)
    assert [target.name for target in train.cost_function_config.target_classes] == [
        "mask",
        "no-mask",
    ]
    assert train.model_config.objective_set.HasField("cov")
    assert not train.HasField("native")
    retrain = spec.load_experiment(specs / "tlt2_retrain.txt")
    assert retrain.model_config.load_graph
    assert not retrain.training_config.cost_scaling.enabled


def test_the_recipes_other_specs(specs):
    inference = spec.load_inference(specs / "tlt2_inference_tlt.txt")
    mask = inference.bbox_handler_config.classwise_bbox_handler_config["mask"]
    assert mask.confidence_threshold == pytest.approx(0.9)
    engine = spec.load_inference(specs / "tlt2_inference_etlt.txt")
    assert engine.inferencer_config.tensorrt_config.trt_engine.endswith("int8_v100.trt")
    assert spec.load_dataset_export(
        specs / "tlt2_tfrecords_trainval.txt"
    ).kitti_config.val_split == pytest.approx(20)
    everything = spec.load_dataset_export(specs / "tlt2_tfrecords_val.txt")
    assert everything.kitti_config.val_split == 100


def test_a_spec_of_tao_5(specs):
    train = spec.load_experiment(specs / "tao5_train.txt")
    clustering = train.postprocessing_config.target_class_config["mask"].clustering_config
    assert clustering.dbscan_confidence_threshold == pytest.approx(0.9)
    assert train.training_config.visualizer.clearml_config.project == "masks"
    assert train.model_config.all_projections


def test_an_unknown_field_is_named_with_file_line_and_suggestion(changed):
    with pytest.raises(DetectNetError) as error:
        changed(("  validation_fold: 0", "  validation_folds: 0"))
    assert problems(error) == [
        '16: unknown field "validation_folds" in DatasetConfig, did you mean "validation_fold"?'
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "what"),
    [
        ("random_seed: 42", "random_seed: -1", 1, "Value out of range: -1"),
        ("num_epochs: 120", "num_epochs: many", 155, "Couldn't parse integer: many"),
        ("type: L1", "type: L3", 165, "has no value named L3"),
    ],
)
def test_a_wrong_value_is_named_with_its_line(changed, old, new, line, what):
    with pytest.raises(DetectNetError) as error:
        changed((old, new))
    (problem,) = problems(error)
    assert problem.startswith(f"{line}: ")
    assert problem.endswith(what + ("." if "named" in what else ""))


def test_a_missing_brace(changed):
    with pytest.raises(DetectNetError, match=r"changed.txt:\d+: Expected"):
        changed(("deadzone_radius: 0.400000154972\n}", "deadzone_radius: 0.4\n"))


def test_each_value_out_of_range_is_a_line(changed):
    with pytest.raises(DetectNetError) as error:
        changed(
            ("output_image_width: 960", "output_image_width: 950"),
            ("batch_size_per_gpu: 24", "batch_size_per_gpu: 0"),
            ("dbscan_eps: 0.15000000596", "dbscan_eps: 1.5"),
            ("epsilon: 9.99999993923e-09", ""),
            ("initial_exponent: 20.0", ""),
            ("zoom_min: 1.0", ""),
            ('arch: "resnet"', 'arch: "vgg"'),
        )
    assert sorted(problems(error)) == sorted(
        [
            "augmentation_config.preprocessing.output_image_width: 950 must be a multiple of 16 "
            "above 0",
            "training_config.batch_size_per_gpu: 0 must be > 0",
            'postprocessing_config.target_class_config["no-mask"].clustering_config.dbscan_eps: '
            "1.5 must be in [0, 1]",
            "training_config.optimizer.adam.epsilon: 0 must be > 0",
            "training_config.cost_scaling.initial_exponent: 0 must be > 0",
            "augmentation_config.spatial_augmentation.zoom_min: 0 must be > 0",
            'model_config.arch: "vgg" must be "resnet": this toolkit has no other',
        ]
    )


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "class_weight: 8.0\n    coverage_foreground_weight: 0.0500000007451",
            "class_weight: -1\n    coverage_foreground_weight: 0.05",
            "cost_function_config.target_classes[1].class_weight: -1 must be >= 0",
        ),
        (
            "class_weight: 8.0\n    coverage_foreground_weight: 0.0500000007451",
            "class_weight: 8\n    coverage_foreground_weight: 1",
            "cost_function_config.target_classes[1].coverage_foreground_weight: 1 must be in "
            "]0, 1[",
        ),
        (
            "beta1: 0.899999976158",
            "beta1: 1",
            "training_config.optimizer.adam.beta1: 1 must be in [0, 1[",
        ),
        (
            "validation_period_during_training: 10",
            "",
            "evaluation_config.validation_period_during_training: 0 must be > 0",
        ),
        (
            "random_seed: 42",
            'random_seed: 42 native { distillation { teacher_model_file: "t.hdf5" } }',
            "native.distillation.weight: 0 must be > 0",
        ),
        (
            "    soft_start_annealing_schedule {\n      min_learning_rate: 5e-06\n"
            "      max_learning_rate: 5e-04\n      soft_start: 0.10000000149\n"
            "      annealing: 0.699999988079\n    }\n",
            "",
            "training_config.learning_rate: a schedule is missing",
        ),
        (
            'bbox_rasterizer_config {\n  target_class_config {\n    key: "mask"',
            'bbox_rasterizer_config {\n  target_class_config {\n    key: "none"',
            'bbox_rasterizer_config.target_class_config: has no entry for the class "mask"',
        ),
    ],
)
def test_what_training_relies_on_is_checked(changed, old, new, problem):
    with pytest.raises(DetectNetError) as error:
        changed((old, new))
    assert problems(error) == [problem]


def test_missing_messages_are_one_line(tmp_path):
    path = tmp_path / "changed.txt"
    path.write_text("random_seed: 1\nmodel_config { num_layers: 18 }\n")
    with pytest.raises(DetectNetError) as error:
        spec.load_experiment(path)
    assert problems(error) == [
        "missing training_config, evaluation_config, cost_function_config, augmentation_config, "
        "bbox_rasterizer_config, postprocessing_config, dataset_config"
    ]


def test_a_class_without_an_entry_of_its_own(changed):
    with pytest.raises(DetectNetError) as error:
        changed(('key: "no-mask"\n    value: 0.5', 'key: "none"\n    value: 0.5'))
    assert problems(error) == [
        "evaluation_config.minimum_detection_ground_truth_overlap: has no entry for the class "
        '"no-mask"'
    ]


@pytest.mark.parametrize(
    ("new", "shown"), [("", "0 must"), ("max_objective_weight: 0.00001", "1e-05 must")]
)
def test_autoweighting_without_room_for_weights(changed, new, shown):
    with pytest.raises(DetectNetError, match=f"max_objective_weight: {shown} be > 0 and at least"):
        changed(("max_objective_weight: 0.999899983406", new))


def test_images_of_differing_sizes_are_refused(changed):
    with pytest.raises(DetectNetError, match=r"output_image_min: 600: images .* not supported"):
        changed(("min_bbox_width: 1.0", "min_bbox_width: 1.0 output_image_min: 600"))


def test_a_mapping_whose_target_is_no_key_would_lose_its_objects(changed):
    with pytest.raises(DetectNetError, match=r'"mask" is a value but no key.*add \{ key: "mask"'):
        changed(('key: "mask"\n    value: "mask"', 'key: "masked"\n    value: "mask"'))


def test_native_options_are_checked(changed):
    experiment = changed(("random_seed: 42", "random_seed: 42 native { ema_decay: 0.99 }"))
    assert experiment.native.ema_decay == pytest.approx(0.99)
    with pytest.raises(DetectNetError, match=r'native.precision: "int8" must be auto, float32'):
        changed(("random_seed: 42", 'random_seed: 42 native { precision: "int8" }'))


def test_files_that_are_no_spec(tmp_path):
    with pytest.raises(DetectNetError, match=r"nowhere.txt: spec cannot be read: No such file"):
        spec.load_experiment(tmp_path / "nowhere.txt")
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DetectNetError, match="not UTF-8 text"):
        spec.load_experiment(binary)


def test_coco_export_is_refused_by_name(tmp_path):
    path = tmp_path / "coco.txt"
    path.write_text('coco_config { root_directory_path: "x" }')
    with pytest.raises(DetectNetError, match="coco_config: this toolkit converts KITTI"):
        spec.load_dataset_export(path)


def test_every_check_names_a_field():
    messages = spec_pb2.DESCRIPTOR.message_types_by_name
    for name, checks in spec.CHECKS.items():
        first, *rest = name.split(".")
        descriptor = messages[first]
        for part in rest:
            descriptor = descriptor.nested_types_by_name[part]
        assert set(checks) <= set(descriptor.fields_by_name), name


def test_the_generated_module_is_that_of_the_schema(repository, tmp_path):
    pytest.importorskip("grpc_tools")
    source = repository / "scripts/detectnet_v2"
    shutil.copy(source / "spec.proto", tmp_path)
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}"]
    command += [f"--python_out={tmp_path}", str(tmp_path / "spec.proto")]
    subprocess.run(command, check=True)
    generated = (tmp_path / "spec_pb2.py").read_text()
    assert (source / "spec_pb2.py").read_text() == generated, "see the head of spec.proto"


def test_settings_without_effect_are_told(changed, repository):
    plain = changed()
    assert list(settings_without_effect(plain)) == []
    lines = list(
        settings_without_effect(
            changed(
                ("vflip_probability: 0.0", "vflip_probability: 0.3"),
                ("min_bbox_width: 1.0", "min_bbox_width: 20"),
                ("dataset_config {", "dataset_config { dataloader_mode: LEGACY"),
                ("model_config {", "model_config { activation { activation_type: 'elu' }"),
            )
        )
    )
    assert [line.split(" has no effect: ")[0] for line in lines] == [
        "dataset_config.dataloader_mode",
        "augmentation_config.spatial_augmentation.vflip_probability",
        "model_config.activation",
        "augmentation_config.preprocessing.min_bbox_width: 20",
    ]
    tao5 = spec.load_experiment(repository / "tests/detectnet_v2/specs/tao5_train.txt")
    assert "training_config.visualizer.clearml_config" in "".join(settings_without_effect(tao5))


def test_every_setting_without_effect_is_in_the_schema():
    for path in REASONS:
        fields = spec_pb2.Experiment.DESCRIPTOR.fields_by_name
        *parents, last = path.split(".")
        for name in parents:
            fields = fields[name].message_type.fields_by_name
        assert last in fields, path
