"""inference: detections in images, folders, videos and of cameras, as overlays and KITTI files.

Under the results folder: images_annotated/<name> and labels/<stem>.txt of an image; of a video or
camera images_annotated/<stem>.mp4 and labels/<stem>/<frame>.txt. Inputs that differ in nothing but
their suffix have all of their name there instead of the stem.
"""

import argparse
import contextlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from detectnet_v2 import objectives, overlay, postprocess, spec_pb2
from detectnet_v2.errors import DetectNetError
from detectnet_v2.network import load_network
from detectnet_v2.progress import progress
from detectnet_v2.spec import load_inference
from detectnet_v2.status import task_status

IMAGE_SUFFIXES = (".jpg", ".png", ".jpeg", ".ppm")

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the task."""
    parser.add_argument("-e", "--experiment_spec", required=True, help="spec of the inference")
    parser.add_argument(
        "-i",
        "--image_dir",
        required=True,
        help="an image, a video, a folder of them, or a camera: its number or /dev/video*",
    )
    # TLT 2.0 calls it -o.
    parser.add_argument(
        "-r",
        "-o",
        "--results_dir",
        "--inference_output",
        required=True,
        type=Path,
        help="where images_annotated and labels go",
    )
    parser.add_argument("-k", "--key", default="", help="accepted and not needed")
    parser.add_argument("-m", "--model_path", type=Path, help=".hdf5 or .onnx; else the spec's")
    parser.add_argument("-b", "--batch_size", type=int, help="images at once; else the spec's")
    parser.add_argument("-v", "--verbose", "--verbosity", action="store_true", help="log more")


def run(args: argparse.Namespace) -> int:
    """Detect in everything that -i names; a damaged file does not keep the others from it."""
    with task_status(args.results_dir, "DetectNet_v2 Inference"):
        inference = load_inference(args.experiment_spec)
        images, videos, camera = find_inputs(args.image_dir)
        output = Output(inference, args.results_dir)
        if output.draws:
            overlay.check_formats(images)
        detector = Detector(inference, args.model_path, args.batch_size)
        unreadable = detect_images(detector, output, images)
        for video, name in output_names(videos).items():
            try:
                detect_video(detector, output, video, name, camera=camera)
            except DetectNetError as error:
                unreadable.append(error)
        if unreadable:
            raise DetectNetError("\n".join(map(str, unreadable)))
        logger.info("Inference complete: %s", args.results_dir)
    return 0


def find_inputs(name: str) -> tuple[list[Path], list[Path], bool]:
    """Return images, videos, and whether the one video is a camera.

    Raises:
        DetectNetError: there is nothing to detect in.
    """
    path = Path(name)
    if path.is_dir():
        files = sorted(path.iterdir())
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        videos = [file for file in files if file.suffix.lower() in _video_suffixes()]
        if not images and not videos:
            raise DetectNetError(f"{path}: no image ({' '.join(IMAGE_SUFFIXES)}) and no video here")
        return images, videos, False
    if name.startswith("/dev/video"):
        return [], [path], True
    if path.is_file():
        if path.suffix.lower() in _video_suffixes():
            return [], [path], False
        if path.suffix.lower() not in Image.registered_extensions():
            raise DetectNetError(f"-i {name}: has no suffix of an image or a video, such as .jpg")
        return [path], [], False
    if name.isdigit():
        return [], [Path(f"/dev/video{name}")], True
    raise DetectNetError(f"-i {name}: no such image, video, folder or camera")


def output_names(paths: Sequence[Path]) -> dict[Path, str]:
    """Return what the results of each file of a folder are called: its stem, if only it has that.

    NVIDIA's toolkits let a.png overwrite the labels of a.jpg.
    """
    names = {path: path.stem for path in paths}
    while len(taken := Counter(names.values())) < len(names):
        shared = [path for path, name in names.items() if taken[name] > 1]
        names.update((path, path.name) for path in shared)
        logger.warning(
            "%s have the same stem: their results carry their whole names",
            ", ".join(path.name for path in shared),
        )
    return names


def _video_suffixes() -> tuple[str, ...]:
    from detectnet_v2.video import SUFFIXES  # noqa: PLC0415 - PyAV is not needed for one image

    return SUFFIXES


class Detector:
    """The network of a spec with its post-processing.

    Raises:
        DetectNetError: the spec names no usable model, or one of another size.
    """

    def __init__(
        self, inference: spec_pb2.Inference, model: Path | None = None, batch: int | None = None
    ):
        config = inference.inferencer_config
        self._clusterings = postprocess.inference_clustering(inference)
        names = list(config.target_classes)
        self._network = load_network(
            model or _model_of(config),
            names,
            precision=inference.native.evaluation_precision or "float32",
        )
        self.size = config.image_width, config.image_height
        if self.size != (self._network.width, self._network.height):
            raise DetectNetError(
                f"inferencer_config: image_width {self.size[0]} and image_height {self.size[1]}: "
                f"the model takes {self._network.width} x {self._network.height}"
            )
        self._stride = config.stride or objectives.STRIDE
        self.batch_size = batch or config.batch_size or 1
        if self.batch_size < 1:
            raise DetectNetError(f"-b {batch}: at least 1 image a batch is needed")
        if config.gpu_index:
            logger.warning(
                "inferencer_config.gpu_index: %d has no effect: give --gpu_index", config.gpu_index
            )
        described = postprocess.describe(self._clusterings, names)
        for name, settings in described.items():
            logger.info("Post-processing of %s: %s", name, settings)

    def __call__(self, frames: Sequence[np.ndarray]) -> list[list[postprocess.Detections]]:
        """Return the detections of each RGB frame (h, w, 3) and class, in pixels of the frame.

        Frames are stretched to the network's input by Pillow's Lanczos filter.
        """
        batch = np.stack(
            [
                np.asarray(Image.fromarray(frame).resize(self.size, Image.Resampling.LANCZOS))
                for frame in frames
            ]
        )
        bbox, cov = self._network(batch)
        found = postprocess.detections(
            bbox,
            cov,
            self._clusterings,
            width=self.size[0],
            height=self.size[1],
            stride=self._stride,
        )
        return [
            [
                (overlay.to_frame(boxes, self.size, frame.shape[1::-1]), confidence)
                for boxes, confidence in by_class
            ]
            for frame, by_class in zip(frames, found, strict=True)
        ]


def _model_of(config: spec_pb2.InferencerConfig) -> Path:
    """Return the model file that the spec names."""
    tensorrt = config.tensorrt_config
    for name in (config.tlt_config.model, tensorrt.etlt_model, tensorrt.trt_engine):
        if name:
            return Path(name)
    raise DetectNetError("inferencer_config: names no model: set tlt_config.model, or give -m")


class Output:
    """Writes what was found, as the spec's bbox_handler_config wants it."""

    def __init__(self, inference: spec_pb2.Inference, folder: Path):
        config = inference.bbox_handler_config
        self._styles = overlay.class_styles(inference)
        self._line_width = config.overlay_linewidth
        self.dumps = config.kitti_dump
        self.draws = not config.disable_overlay
        self.images = folder / "images_annotated"
        self.labels = folder / "labels"

    def annotated(self, frame: np.ndarray, found: Sequence[postprocess.Detections]) -> Image.Image:
        """Return the frame with the boxes drawn."""
        image = Image.fromarray(frame)
        overlay.draw(image, found, self._styles, self._line_width)
        return image

    def write_labels(self, path: Path, found: Sequence[postprocess.Detections]) -> None:
        """Write the KITTI file of a frame, if the spec wants it."""
        if self.dumps:
            overlay.write_labels(path, found, self._styles)


def detect_images(
    detector: Detector, output: Output, paths: Sequence[Path]
) -> list[DetectNetError]:
    """Detect in images; return what those that cannot be read have."""
    unreadable = []
    names = output_names(paths)
    work = progress(_read_ahead(paths), len(paths), "images", logger)
    while batch := list(islice(work, detector.batch_size)):
        unreadable += [content for _, content in batch if isinstance(content, DetectNetError)]
        batch = [(path, item) for path, item in batch if not isinstance(item, DetectNetError)]
        if not batch:
            continue
        found = detector([frame for _, frame in batch])
        for (path, frame), detections in zip(batch, found, strict=True):
            if output.draws:
                overlay.write_image(output.annotated(frame, detections), output.images / path.name)
            output.write_labels(output.labels / f"{names[path]}.txt", detections)
    return unreadable


def _read_ahead(paths: Iterable[Path]) -> Iterator[tuple[Path, np.ndarray | DetectNetError]]:
    """Yield path and pixels of each image, or why it cannot be read; decoded by threads."""
    from detectnet_v2.images import read_image  # noqa: PLC0415 - see loader
    from detectnet_v2.loader import Prefetcher  # noqa: PLC0415 - it loads torch

    def read(path: Path) -> tuple[Path, np.ndarray | DetectNetError]:
        try:
            return path, read_image(path)
        except DetectNetError as error:
            return path, error

    with Prefetcher(read, ((path,) for path in paths), workers=2, ahead=8) as images:
        yield from images


def detect_video(
    detector: Detector, output: Output, path: Path, name: str, *, camera: bool = False
) -> None:
    """Detect in every frame of a video, or of a camera until it is interrupted (Ctrl-C).

    The results are called ``name``.

    Raises:
        DetectNetError: the video cannot be read to its end; then there is no annotated one.
    """
    from detectnet_v2.video import VideoSource, video_writer  # noqa: PLC0415 - see find_inputs

    with VideoSource(path, camera=camera) as source, contextlib.ExitStack() as stack:
        writer = None
        if output.draws:
            target = output.images / f"{name}.mp4"
            writer = stack.enter_context(video_writer(target, source.rate))
        # The latest frame of a camera counts, not a full batch.
        size = 1 if camera else detector.batch_size
        frames = progress(source, source.count, "frames", logger)
        number = 0
        # Ctrl-C is how a camera's user says that it is enough.
        with contextlib.suppress(*([KeyboardInterrupt] if camera else [])):
            while batch := list(islice(frames, size)):
                for frame, found in zip(batch, detector(batch), strict=True):
                    if writer:
                        writer.write(np.asarray(output.annotated(frame, found)))
                    output.write_labels(output.labels / name / f"{number:06d}.txt", found)
                    number += 1
        if not number and not camera:
            raise DetectNetError(f"{path}: video has no frame that can be read: replace it")
        logger.info("%s: %d frames", path, number)
