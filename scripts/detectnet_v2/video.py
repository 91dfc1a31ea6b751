"""Frames of video files and cameras, and annotated videos, by PyAV."""

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from detectnet_v2.errors import DetectNetError
from detectnet_v2.whole_file import cannot_write

SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".h264", ".264", ".mpg", ".mpeg", ".webm", ".m4v")
DEFAULT_RATE = Fraction(30)


class VideoSource:
    """Frames of a video file or of a camera (`/dev/video0`, by video4linux); a context manager.

    Attributes:
        rate: frames a second.
        count: number of frames as the file says; 0 when it does not.

    Raises:
        DetectNetError: there is no such video, or no codec for it.
    """

    def __init__(self, path: Path, *, camera: bool = False):
        self._path = path
        try:
            self._container = av.open(str(path), format="v4l2" if camera else None)
        except (av.FFmpegError, OSError) as error:
            what = "camera" if camera else "video"
            raise DetectNetError(f"{path}: {what} cannot be opened: {error.strerror}") from error
        if not self._container.streams.video:
            self._container.close()
            raise DetectNetError(f"{path}: has no video stream")
        self._stream = self._container.streams.video[0]
        self._stream.thread_type = "AUTO"
        self.rate = self._stream.average_rate or DEFAULT_RATE
        self.count = self._stream.frames

    def __enter__(self) -> "VideoSource":
        return self

    def __exit__(self, *exception: object) -> None:
        self._container.close()

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield RGB frames (h, w, 3) uint8."""
        try:
            for frame in self._container.decode(self._stream):
                yield frame.to_ndarray(format="rgb24")
        except av.FFmpegError as error:
            raise DetectNetError(f"{self._path}: video is damaged: {error.strerror}") from error


@contextlib.contextmanager
def video_writer(path: Path, rate: Fraction) -> Iterator["VideoWriter"]:
    """Yield a writer of an H.264 file in an mp4; the file appears when all went well.

    Raises:
        DetectNetError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        writer = VideoWriter(part, rate)
        try:
            yield writer
        except BaseException:
            # It may have failed itself and do so again.
            with contextlib.suppress(av.FFmpegError):
                writer.close()
            raise
        writer.close()
        part.replace(path)
    except av.FFmpegError as error:
        raise cannot_write(path, error) from error
    finally:
        part.unlink(missing_ok=True)


class VideoWriter:
    """Encodes frames; their size is that of the first one, less a last odd row or column."""

    def __init__(self, path: Path, rate: Fraction):
        self._container = av.open(str(path), "w", format="mp4")
        self._rate = rate
        self._stream = None

    def write(self, frame: np.ndarray) -> None:
        """Add an RGB frame (h, w, 3) uint8."""
        if self._stream is None:
            self._stream = self._container.add_stream("libx264", rate=self._rate)
            # The subsampled colours need even sides.
            self._stream.width = frame.shape[1] // 2 * 2
            self._stream.height = frame.shape[0] // 2 * 2
            self._stream.pix_fmt = "yuv420p"
        cropped = np.ascontiguousarray(frame[: self._stream.height, : self._stream.width])
        picture = av.VideoFrame.from_ndarray(cropped, format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        """Write what the encoder still holds."""
        try:
            if self._stream is not None:
                self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
