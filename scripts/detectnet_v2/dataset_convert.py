"""dataset_convert: a folder of images and KITTI labels becomes tfrecords in folds and shards.

Names, partitions, order of the frames and printed statistics are those of NVIDIA's converter.
"""

import argparse
import json
import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from datasets.headers import ImageHeaderError, image_size

from detectnet_v2 import spec_pb2
from detectnet_v2.dataset import COORDINATES, data_path
from detectnet_v2.errors import DetectNetError
from detectnet_v2.kitti import Label, read_calibration, read_labels
from detectnet_v2.sample_modifier import SampleModifier
from detectnet_v2.spec import load_dataset_export
from detectnet_v2.status import StatusLog, task_status
from detectnet_v2.tfrecord import Feature, encode_example, part_of, write_part
from detectnet_v2.whole_file import cannot_write, write_json

LOG_FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
SEED = 42
LIDAR_CHANNELS = 4
WORLD_BOX = tuple(f"target/world_bbox_{name}" for name in ("h", "w", "l", "x", "y", "z", "rot_y"))
CLASS_MAP_NOTE = (
    "For the dataset_config in the experiment_spec, please use labels in the tfrecords file, "
    "while writing the classmap.\n"
)

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the task."""
    parser.add_argument(
        "-d", "--dataset_export_spec", required=True, help="spec with a kitti_config"
    )
    parser.add_argument(
        "-o", "--output_filename", required=True, help="path and first part of the files' names"
    )
    parser.add_argument(
        "-f", "--validation_fold", type=int, help="fold that the sample modifier leaves alone"
    )
    parser.add_argument("-r", "--results_dir", type=Path, help="where status.json goes")
    parser.add_argument("-v", "--verbose", action="store_true", help="log more")


def run(args: argparse.Namespace) -> int:
    """Convert the dataset that the spec names."""
    with task_status(args.results_dir, "Object Detection Dataset Convert") as status:
        config = load_dataset_export(args.dataset_export_spec)
        logger.info("Instantiating a kitti converter")
        convert(config, Path(args.output_filename), args.validation_fold, status)
    return 0


def convert(
    config: spec_pb2.DatasetExportConfig,
    output: Path,
    validation_fold: int | None = None,
    status: StatusLog | None = None,
) -> list[Path]:
    """Write the tfrecords and return their paths; all of them appear, or none.

    Args:
        config: spec of a KITTI folder.
        output: path of the files, to which fold and shard are appended.
        validation_fold: fold that the sample modifier leaves as it is.
        status: gets a line for each shard.

    Raises:
        DetectNetError: images or labels are missing or damaged, or a file cannot be written.
    """
    status = status or StatusLog(None)
    kitti = config.kitti_config
    modifier = SampleModifier(
        config.sample_modifier_config,
        validation_fold=validation_fold,
        num_folds=max(kitti.num_partitions, 1),
    )
    frames = _Frames(kitti, modifier)
    generator = random.Random(SEED)
    partitions = _partition(kitti, generator, status)
    for partition in partitions:
        generator.shuffle(partition)
    paths: list[Path] = []
    total: Counter[bytes] = Counter()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        for fold, shards in enumerate(_shard(partitions, kitti.num_shards)):
            in_fold: Counter[bytes] = Counter()
            for number, names in enumerate(shards):
                _log(f"Writing partition {fold}, shard {number}", status)
                paths.append(shard_path(output, kitti, fold, number))
                write_part(paths[-1], frames.records(names, fold, in_fold))
            _log_counts(in_fold)
            total += in_fold
        for path in paths:
            part_of(path).replace(path)
    except OSError as error:
        raise cannot_write(paths[-1] if paths else output.parent, error) from error
    finally:
        for path in paths:
            part_of(path).unlink(missing_ok=True)
    _summarise(output, paths, frames, total, status)
    return paths


def shard_path(output: Path, kitti: spec_pb2.KITTIConfig, fold: int, shard: int) -> Path:
    """Return the path of one file; a number of 0 folds or shards leaves that part of it out."""
    name = output.name
    if kitti.num_partitions:
        name += f"-fold-{fold:03d}-of-{kitti.num_partitions:03d}"
    if kitti.num_shards:
        name += f"-shard-{shard:05d}-of-{kitti.num_shards:05d}"
    return output.with_name(name)


def _partition(
    kitti: spec_pb2.KITTIConfig, generator: random.Random, status: StatusLog
) -> list[list[str]]:
    """Return the frames of each fold; in mode `random` fold 0 is the first val_split percent."""
    root = data_path(kitti.root_directory_path)
    if kitti.partition_mode == "sequence":
        partitions = _sequences(kitti, root)
        status.kpi = {"num_images": sum(map(len, partitions))}
        status.write(f"Total number of images: {status.kpi['num_images']}")
        return partitions
    if kitti.num_partitions != 2:
        raise DetectNetError(
            f"kitti_config.num_partitions: {kitti.num_partitions} must be 2 for partition_mode "
            f'"random"'
        )
    names = _image_names(root / kitti.image_dir_name, kitti.image_extension or ".png")
    # 100 puts everything into fold 0: TLT 2.0's way to convert a test set, refused by TAO 5.
    count = int(kitti.val_split / 100.0 * len(names))
    partitions = [names[:count], names[count:]]
    for partition in partitions:
        generator.shuffle(partition)
    status.kpi = {"num_images": len(names)}
    _log(f"Num images in\nTrain: {len(partitions[1])}\tVal: {len(partitions[0])}", status)
    if kitti.val_split == 0:
        _log("Skipped validation data...", status)
    else:
        _log(
            "Validation data in partition 0. Hence, while choosing the validation "
            "set during training choose validation_fold 0.",
            status,
        )
    return partitions


def _image_names(folder: Path, extension: str) -> list[str]:
    """Return the sorted names, without extension, of the images in a folder."""
    if not folder.is_dir():
        raise DetectNetError(
            f"{folder}: no such folder of images: are root_directory_path and image_dir_name right?"
        )
    names = sorted(path.name for path in folder.iterdir() if path.name.endswith(extension))
    if not names:
        raise DetectNetError(f"{folder}: no file ends with {extension}: is image_extension right?")
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DetectNetError(
                f"{folder}: the name of image {name!r} is no UTF-8, which tfrecords need: rename it"
            ) from error
    return [Path(name).stem for name in names]


def _sequences(kitti: spec_pb2.KITTIConfig, root: Path) -> list[list[str]]:
    """Return folds of whole sequences: the longest first, dealt in turn, the last fold first."""
    if not kitti.kitti_sequence_to_frames_file:
        raise DetectNetError(
            'kitti_config.kitti_sequence_to_frames_file: is needed for partition_mode "sequence"'
        )
    path = root / kitti.kitti_sequence_to_frames_file
    try:
        sequences = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DetectNetError(f"{path}: list of sequences cannot be read: {error}") from error
    if not isinstance(sequences, dict):
        raise DetectNetError(f"{path}: must map sequences to lists of frames")
    if kitti.num_partitions <= 1:
        return [[frame for frames in sequences.values() for frame in frames]]
    partitions: list[list[str]] = [[] for _ in range(kitti.num_partitions)]
    by_length = sorted(sequences.items(), key=lambda item: (-len(item[1]), item[0]))
    for number, (_, frames) in enumerate(by_length):
        partitions[number % len(partitions)] += frames
    return partitions[::-1]


def _shard(partitions: Sequence[list[str]], num_shards: int) -> Iterator[list[list[str]]]:
    """Yield the shards of each partition that has frames; the last shard takes the remainder."""
    count = max(num_shards, 1)
    for frames in partitions:
        if not frames:
            # Left out before folds are numbered: with val_split 0 the training data is fold 0.
            continue
        size = len(frames) // count
        yield [
            frames[index * size : (index + 1) * size if index + 1 < count else None]
            for index in range(count)
        ]


class _Frames:
    """Turns frames into serialised examples; remembers rejected boxes and names of classes."""

    def __init__(self, kitti: spec_pb2.KITTIConfig, modifier: SampleModifier):
        self._kitti = kitti
        self._root = data_path(kitti.root_directory_path)
        self._modifier = modifier
        self.rejected: dict[str, list[int]] = {}
        self.class_map: dict[bytes, bytes] = {}

    def records(self, frames: Iterable[str], fold: int, counts: Counter[bytes]) -> Iterator[bytes]:
        """Yield the examples of some frames and count their objects."""
        for frame in frames:
            features = self._features(frame)
            classes = features["target/object_class"]
            copies = self._modifier.copies([name.decode() for name in classes], fold)
            if copies > 0:
                record = encode_example(features)
            for _ in range(copies):
                counts.update(classes)
                yield record

    def _features(self, frame: str) -> dict[str, Feature]:
        """Return the features of a frame by their keys in NVIDIA's tfrecords."""
        kitti = self._kitti
        image = self._root / kitti.image_dir_name / (frame + (kitti.image_extension or ".png"))
        try:
            width, height = image_size(image)
        except ImageHeaderError as error:
            raise DetectNetError(f"{image}: {error}") from error
        labels = self._labels(self._root / kitti.label_dir_name / f"{frame}.txt")
        numbers = np.array([label.values for label in labels]).reshape(-1, 14)
        columns = numbers.astype(np.float32).T
        features: dict[str, Feature] = {
            "frame/id": [f"{kitti.image_dir_name}/{frame}".encode()],
            "frame/height": np.array([height]),
            "frame/width": np.array([width]),
            "target/object_class": [label.name.encode().lower() for label in labels],
            "target/truncation": columns[0],
            "target/occlusion": numbers[:, 1].astype(np.int64),
            "target/observation_angle": columns[2],
        }
        features |= zip(COORDINATES, columns[3:7], strict=True)
        features |= zip(WORLD_BOX, columns[7:], strict=True)
        if kitti.point_clouds_dir:
            features["point_cloud/id"] = [f"{kitti.point_clouds_dir}/{frame}".encode()]
            features["point_cloud/num_input_channels"] = np.array([LIDAR_CHANNELS])
        if kitti.calibrations_dir:
            file = self._root / kitti.calibrations_dir / f"{frame}.txt"
            to_camera, to_image = read_calibration(file)
            features["calibration/T_lidar_to_camera"] = to_camera.ravel()
            features["calibration/P_lidar_to_image"] = to_image.ravel()
        return features

    def _labels(self, path: Path) -> list[Label]:
        """Return the labels of a file whose box has an area, in whole pixels."""
        kept = []
        for label in read_labels(path):
            x1, y1, x2, y2 = (int(value) for value in label.box)
            if x1 < x2 and y1 < y2:
                name = label.name.encode()
                self.class_map[name] = name.lower()
                kept.append(label)
            else:
                logger.debug(
                    "%s:%d: skipped, no area: %d %d %d %d", path, label.line, x1, y1, x2, y2
                )
                self.rejected[f"{path}_{label.index}"] = [x1, y1, x2, y2]
        return kept


def _summarise(
    output: Path, paths: Sequence[Path], frames: _Frames, total: Counter[bytes], status: StatusLog
) -> None:
    """Print what was written, in the order of NVIDIA's converter, and list the rejected boxes."""
    status.categorical = {"num_objects": {name.decode(): n for name, n in total.items()}}
    _log("Cumulative object statistics", status)
    _log_counts(total)
    pairs = "".join(f"\n{name}: {mapped}" for name, mapped in frames.class_map.items())
    _log(f"Class map. \nLabel in GT: Label in tfrecords file {pairs}", status)
    print(CLASS_MAP_NOTE)
    status.write(CLASS_MAP_NOTE)
    _log("Tfrecords generation complete.", status)
    warning = output.with_name(f"{output.name}_warning.json")
    if frames.rejected:
        logger.info("Writing the log_warning.json")
        write_json(warning, frames.rejected)
        logger.info("There were errors in the labels. Details are logged at %s", warning)
    else:
        warning.unlink(missing_ok=True)
    _warn(output, paths)


def _warn(output: Path, paths: Sequence[Path]) -> None:
    """Warn of files that a training would stumble over."""
    empty = [path.name for path in paths if path.stat().st_size == 0]
    if empty:
        logger.warning(
            "%d of %d files are empty: there are fewer images in a fold than num_shards; NVIDIA's "
            "trainer fails when the first file is empty",
            len(empty),
            len(paths),
        )
    others = {path for path in output.parent.glob(f"{output.name}-*")} - set(paths)
    if others:
        logger.warning(
            "%s: %d more files of an earlier conversion are here (%s ...): a tfrecords_path with * "
            "takes them, too",
            output.parent,
            len(others),
            min(others).name,
        )


def _log(message: str, status: StatusLog) -> None:
    logger.info(message)
    status.write(message)


def _log_counts(counts: Counter[bytes]) -> None:
    lines = "".join(f"\n{name}: {count}" for name, count in counts.items())
    logger.info("\nWrote the following numbers of objects:%s\n", lines)
