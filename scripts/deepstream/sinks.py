"""Where frames end: nowhere (type 1) or in a video file (type 3)."""

import os
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from deepstream.appconfig import Sink
from deepstream.errors import DeepStreamError

_ENCODERS = {1: "libx264", 2: "libx265", 3: "mpeg4"}
_CONTAINERS = {1: "mp4", 2: "matroska"}
_TIME_BASE = Fraction(1, 90000)


class Pacer:
    """sync=1: holds frames back until their presentation time has come."""

    def __init__(self, stop: threading.Event):
        self._stop = stop
        self._begun: float | None = None

    def wait(self, time_s: float) -> None:
        """Sleep until `time_s` after the first frame, or until the pipeline stops."""
        if self._begun is None:
            self._begun = time.monotonic() - time_s
        delay = self._begun + time_s - time.monotonic()
        if delay > 0:
            self._stop.wait(delay)


class FileSink:
    """Encodes RGB pictures to a file that appears under its name when it is complete.

    Relative names start at the working directory, as in deepstream-app.
    """

    def __init__(self, sink: Sink, width: int, height: int):
        """Open the encoder for pictures of width x height; DeepStreamError when it cannot be."""
        self._path = Path(sink.output_file)
        self._partial = self._path.with_name(self._path.name + ".part")
        self._last = -1
        try:
            self._container = av.open(str(self._partial), "w", format=_CONTAINERS[sink.container])
            self._stream = self._add_stream(sink, width, height)
        except (av.FFmpegError, OSError) as error:
            raise DeepStreamError(f"output-file={self._path}: {error}") from error

    def _add_stream(self, sink, width, height):
        encoder = _ENCODERS[sink.codec]
        stream = self._container.add_stream(encoder, rate=30)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = _TIME_BASE
        if sink.key_interval:
            stream.codec_context.gop_size = sink.key_interval
        if sink.bitrate:
            stream.bit_rate = sink.bitrate
        if encoder != "mpeg4":
            stream.options = {"preset": "veryfast"}
            if encoder == "libx265":
                stream.options = {"preset": "veryfast", "x265-params": "log-level=error"}
        return stream

    def write(self, picture: np.ndarray, time_s: float) -> None:
        """Encode one RGB picture (height, width, 3) that is shown at `time_s`."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        # Timestamps of a looped or damaged source may stand still, which no container takes.
        stamp = max(round(time_s / _TIME_BASE), self._last + 1)
        self._last = stamp
        frame.pts, frame.time_base = stamp, _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file and give it its name."""
        if self._last >= 0:
            self._container.mux(self._stream.encode())
        self._container.close()
        if self._last >= 0:
            os.replace(self._partial, self._path)
        else:
            self._partial.unlink(missing_ok=True)

    def abandon(self) -> None:
        """Drop what was written."""
        self._container.close()
        self._partial.unlink(missing_ok=True)
