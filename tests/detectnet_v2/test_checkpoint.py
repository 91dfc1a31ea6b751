from pathlib import Path

import numpy as np
import pytest
import torch
from detectnet_v2 import spec_pb2
from detectnet_v2.checkpoint import CheckpointFolder, training_digest
from detectnet_v2.dataset import Sample
from detectnet_v2.errors import DetectNetError


def sample(x1=1.0):
    boxes = np.array([[x1, 2, 30, 40]], dtype=np.float32)
    return Sample(Path("a.png"), "images/a", 64, 64, boxes, np.array([0], dtype=np.int32), 1.0)


def digest(experiment=None, samples=None, images="abc", files=(), processes=1, precision="auto"):
    return training_digest(
        experiment or spec_pb2.Experiment(random_seed=3),
        samples or [sample()],
        images,
        files,
        processes=processes,
        precision=precision,
    )


def test_state_comes_back_as_it_was(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", "d")
    assert folder.load() is None
    folder.save({"step": 1, "weights": torch.zeros(3)})
    folder.save({"step": 7, "weights": torch.arange(3.0)})
    state = CheckpointFolder(tmp_path / "checkpoints", "d").load()
    assert state["step"] == 7
    assert state["weights"].tolist() == [0, 1, 2]
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["state.pt"]
    folder.remove()
    assert not (tmp_path / "checkpoints").exists()


def test_another_trainings_state_is_left_alone(tmp_path, caplog):
    CheckpointFolder(tmp_path, "one").save({"step": 1})
    assert CheckpointFolder(tmp_path, "two").load() is None
    assert "belongs to another training" in caplog.text


def test_a_torn_file_starts_afresh(tmp_path, caplog):
    folder = CheckpointFolder(tmp_path, "d")
    folder.save({"step": 1, "weights": torch.zeros(1000)})
    path = tmp_path / "state.pt"
    path.write_bytes(path.read_bytes()[:700])
    assert folder.load() is None
    assert "cannot be read" in caplog.text
    path.write_bytes(b"")
    assert folder.load() is None


def test_a_full_disk_keeps_the_state_of_before(tmp_path, short_files):
    folder = CheckpointFolder(tmp_path, "d")
    folder.save({"step": 1, "weights": torch.zeros(1000)})
    with short_files(2000), pytest.raises(DetectNetError) as caught:
        folder.save({"step": 2, "weights": torch.zeros(1000)})
    assert str(caught.value) == f"cannot write {tmp_path}/state.pt: File too large"
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert folder.load()["step"] == 1


def test_the_digest_covers_what_decides_the_result(tmp_path):
    pretrained = tmp_path / "model.hdf5"
    pretrained.write_bytes(b"weights")
    changed = spec_pb2.Experiment(random_seed=3)
    changed.training_config.num_epochs = 9
    focal = spec_pb2.Experiment(random_seed=3)
    focal.native.coverage_focal_gamma = 2
    digests = [
        digest(),
        digest(experiment=changed),
        digest(experiment=focal),
        digest(samples=[sample(2.0)]),
        digest(images="abd"),
        digest(files=[pretrained]),
        digest(processes=2),
        digest(precision="float32"),
    ]
    assert len(set(digests)) == len(digests)
    assert digest() == digest()


def test_the_digest_ignores_where_and_how_fast():
    spec = spec_pb2.Experiment(random_seed=3)
    spec.native.workers = 4
    spec.native.threads = 2
    spec.native.cache_directory = "/scratch"
    spec.native.deterministic = True
    spec.training_config.checkpoint_interval = 5
    spec.training_config.visualizer.enabled = True
    # What an evaluation says.
    spec.native.evaluation_precision = "bfloat16"
    spec.native.postprocessing = spec_pb2.NativeConfig.CORRECTED
    spec.postprocessing_config.target_class_config["mask"].clustering_config.dbscan_eps = 0.3
    spec.evaluation_config.validation_period_during_training = 3
    plain = spec_pb2.Experiment(random_seed=3)
    plain.training_config.SetInParent()
    assert digest(experiment=spec) == digest(experiment=plain)
    assert spec.native.workers == 4


def test_the_digest_minds_validation_where_that_ends_the_training():
    digests = []
    for period in (1, 3):
        spec = spec_pb2.Experiment()
        spec.training_config.learning_rate.early_stopping_annealing_schedule.patience_steps = 5
        spec.evaluation_config.validation_period_during_training = period
        digests.append(digest(experiment=spec))
    assert digests[0] != digests[1]


def test_a_missing_pretrained_file_is_named():
    with pytest.raises(DetectNetError, match=r"none\.hdf5: cannot be read"):
        digest(files=[Path("none.hdf5")])
