"""What a training refuses before it looks at an image."""

import pytest
from detectnet_v2 import spec
from detectnet_v2.errors import DetectNetError
from detectnet_v2.training_setup import build_model, check_supported


@pytest.fixture
def experiment(repository):
    return spec.load_experiment(repository / "tests/detectnet_v2/specs/tlt2_train.txt")


def test_quantisation_aware_training_is_refused(experiment):
    check_supported(experiment)
    experiment.training_config.enable_qat = True
    with pytest.raises(DetectNetError, match=r"enable_qat: not supported.*calibrate for INT8"):
        check_supported(experiment)


def test_a_network_too_coarse_to_detect_is_refused(experiment):
    experiment.model_config.use_pooling = True
    with pytest.raises(DetectNetError, match=r"use_pooling: true is not supported.* leave it away"):
        check_supported(experiment)


@pytest.mark.parametrize(
    ("setting", "value"), [("load_graph", True), ("freeze_blocks", [0.0, 1.0])]
)
def test_what_needs_a_model_file_says_so(experiment, setting, value):
    config = experiment.model_config
    config.ClearField("pretrained_model_file")
    if isinstance(value, list):
        getattr(config, setting).extend(value)
    else:
        setattr(config, setting, value)
    with pytest.raises(DetectNetError, match=f"model_config.{setting} needs a pretrained_model_f"):
        build_model(experiment)
