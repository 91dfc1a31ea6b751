"""The rendered inference spec: thresholds from the curve, and a spec that the toolkit reads."""

import pytest
from detectnet_v2 import postprocess, spec
from inference_spec import UNKNOWN, best_confidences, write_spec

CURVE = """class,confidence,precision,recall
mask,2.5,1.0,0.2
mask,1.25,0.9,0.8
mask,0.1,0.5,0.9
no-mask,0.3,0.0,0.0
"""
EVALUATION = {
    "coverage_threshold": 0.05,
    "dbscan_eps": {"mask": 0.2, "no-mask": 0.15},
    "dbscan_min_samples": 0.05,
    "minimum_bounding_box_height": 4,
}


@pytest.fixture
def curve(tmp_path):
    path = tmp_path / "precision_recall.csv"
    path.write_text(CURVE)
    return path


def test_the_best_f1_of_each_class_decides(curve):
    assert best_confidences(curve, ["mask", "no-mask"]) == {"mask": 1.25, "no-mask": UNKNOWN}


def test_the_toolkit_reads_the_spec(curve, tmp_path, repository):
    output = tmp_path / "inference_spec.txt"
    write_spec(
        repository / "specs/inference.txt",
        output,
        model="chosen/model.hdf5",
        network={"width": 160, "height": 96},
        evaluation=EVALUATION,
        confidences=best_confidences(curve, ["mask", "no-mask"]),
        native={"evaluation_precision": "bfloat16", "dbscan_min_samples": "INTEGER"},
    )
    inference = spec.load_inference(output)
    assert list(inference.inferencer_config.target_classes) == ["mask", "no-mask"]
    assert inference.inferencer_config.tlt_config.model == "chosen/model.hdf5"
    mask, _ = postprocess.inference_clustering(inference)
    assert mask.dbscan_confidence == 1.25
    assert mask.min_height == 4
    # Evaluation's way of reading 0.05, and its arithmetic.
    assert mask.min_weight == 1.0
    assert inference.native.evaluation_precision == "bfloat16"
    assert not output.with_name("inference_spec.txt.part").exists()
