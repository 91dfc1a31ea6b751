"""Reads the streams of a pipeline with FFmpeg (PyAV): one thread a source, surfaces in a queue."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full, Queue

import av
import numpy as np

from deepstream.appconfig import RTSP, V4L2, Source
from deepstream.errors import DeepStreamError
from deepstream.surface import Surface

log = logging.getLogger("deepstream")

# Enough to ride out a key frame, little enough not to hold a gigabyte of 1080p frames.
_QUEUE_FRAMES = 4
_POLL_S = 0.1


@dataclass(frozen=True)
class Frame:
    """One decoded frame: stream and number as in the KITTI dump, `time_s` from the start."""

    source: int
    number: int
    time_s: float
    surface: Surface


def frames(source: Source, *, threads: int = 1) -> Iterator[tuple[float, av.VideoFrame]]:
    """Decode a source once: (presentation time in s, frame), after `drop-frame-interval`.

    Raises DeepStreamError when it cannot be opened or holds no video.
    """
    try:
        container = _open(source)
    except (av.FFmpegError, OSError) as error:
        raise DeepStreamError(f"{source.location}: cannot be opened: {_reason(error)}") from error
    with container:
        if not container.streams.video:
            raise DeepStreamError(f"{source.location}: holds no video stream")
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        if threads > 1:
            stream.thread_type = "AUTO"
        try:
            yield from _decode(container, stream, source.drop_frame_interval)
        except av.FFmpegError as error:
            raise DeepStreamError(f"{source.location}: {_reason(error)}") from error


def video_size(path: Path) -> tuple[int, int]:
    """Return width and height of a video file, made even; DeepStreamError when it holds none."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DeepStreamError(f"{path}: holds no video stream")
            context = container.streams.video[0].codec_context
            return context.width // 2 * 2, context.height // 2 * 2
    except (av.FFmpegError, OSError) as error:
        raise DeepStreamError(f"{path}: cannot be opened: {_reason(error)}") from error


def _open(source):
    if source.type == V4L2:
        options = {}
        if source.width and source.height:
            options["video_size"] = f"{source.width}x{source.height}"
        if source.frame_rate:
            options["framerate"] = f"{source.frame_rate:g}"
        return av.open(source.location, format="v4l2", options=options)
    if source.type == RTSP or source.location.startswith("rtsp://"):
        options = {"max_delay": str(source.latency_ms * 1000)}
        if source.tcp:
            options["rtsp_transport"] = "tcp"
        return av.open(source.location, options=options, timeout=10.0)
    return av.open(source.location)


def _decode(container, stream, drop_interval):
    start = None
    rate = float(stream.average_rate or 30)
    for index, frame in enumerate(container.decode(stream)):
        if drop_interval and index % drop_interval:
            continue
        stamp = frame.time if frame.time is not None else index / rate
        start = stamp if start is None else start
        yield stamp - start, frame


def _reason(error):
    return getattr(error, "strerror", None) or str(error)


class SourceReader(threading.Thread):
    """Decodes one source into a bounded queue, scaled to the mux's size; None marks its end."""

    def __init__(
        self,
        index: int,
        source: Source,
        *,
        size: tuple[int, int],
        padding: bool,
        loop: bool,
        stop: threading.Event,
        failed: Callable[[BaseException], None],
        threads: int = 1,
    ):
        """Prepare stream `index`; `size` is the mux's (width, height), `stop` ends it early."""
        super().__init__(name=f"source{index}", daemon=True)
        self.index = index
        self.queue: Queue[Frame | None] = Queue(_QUEUE_FRAMES)
        self._source = source
        self._size = size
        self._padding = padding
        self._loop = loop and not source.live
        self._stop_event = stop
        self._failed = failed
        self._threads = threads
        self._number = 0

    def run(self) -> None:
        """Decode until the end, for ever with file-loop, or until stopped."""
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits for the pipeline
            self._failed(error)
        self._put(None)

    def _read(self):
        elapsed = 0.0
        while not self._stop_event.is_set():
            last, step, begun = 0.0, 0.0, self._number
            try:
                for time_s, frame in frames(self._source, threads=self._threads):
                    step = time_s - last if time_s > last else step
                    last = time_s
                    surface = self._place(Surface.from_frame(frame))
                    if not self._put(Frame(self.index, self._number, elapsed + time_s, surface)):
                        return
                    self._number += 1
            except DeepStreamError as error:
                if not self._reconnects():
                    raise
                log.warning("%s, trying again in %d s", error, self._source.reconnect_s)
                self._stop_event.wait(self._source.reconnect_s)
                continue
            if not self._loop:
                return
            if self._number == begun:
                raise DeepStreamError(f"{self._source.location}: no frame could be decoded")
            elapsed += last + step

    def _reconnects(self):
        return self._source.live and self._source.reconnect_s > 0 and self._number > 0

    def _place(self, surface):
        width, height = self._size
        if not self._padding:
            return surface.resized(width, height)
        return _pad(surface, width, height)

    def _put(self, frame):
        """Queue a frame, waiting for room; live sources drop their oldest instead."""
        while not self._stop_event.is_set():
            try:
                self.queue.put(frame, timeout=_POLL_S)
            except Full:
                if self._source.live and frame is not None:
                    self._drop_oldest()
                continue
            return True
        return False

    def _drop_oldest(self):
        try:
            self.queue.get_nowait()
        except Empty:
            return


def _pad(surface, width, height):
    """Keep the aspect ratio and fill with black at the right and the bottom (enable-padding)."""
    ratio = min(width / surface.width, height / surface.height)
    inner = surface.resized(
        max(2, int(surface.width * ratio) // 2 * 2), max(2, int(surface.height * ratio) // 2 * 2)
    )
    black = 0 if surface.full_range else 16
    planes = []
    for plane, value, shrink in zip(inner.planes, (black, 128, 128), (1, 2, 2), strict=True):
        canvas = np.full((height // shrink, width // shrink), value, np.uint8)
        canvas[: plane.shape[0], : plane.shape[1]] = plane
        planes.append(canvas)
    return Surface(
        width,
        height,
        planes=tuple(planes),
        bt709=surface.bt709,
        full_range=surface.full_range,
    )


def take(reader: SourceReader, stop: threading.Event, deadline: float | None) -> Frame | None:
    """Wait for a reader's next frame; None at its end or when stopped, Empty after `deadline`.

    `deadline` is a time.monotonic() value, None waits for ever.
    """
    while not stop.is_set():
        wait = _POLL_S if deadline is None else min(_POLL_S, deadline - time.monotonic())
        try:
            return reader.queue.get(timeout=max(wait, 0.001))
        except Empty:
            if deadline is not None and time.monotonic() >= deadline:
                raise
    return None
