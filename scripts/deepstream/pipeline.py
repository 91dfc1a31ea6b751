"""One deepstream-app pipeline: decode, detect, draw and write, each in threads of its own.

source threads -> mux -> inference workers -> one output thread, in the order of the batches. Every
hand-over is bounded, so that memory does not grow with the length of the video.
"""

import logging
import threading

from detectnet_v2.cores import job_threads

from deepstream import inferconfig
from deepstream.appconfig import FILE_SINK, AppConfig
from deepstream.detector import NOTHING, Detector, Objects
from deepstream.errors import DeepStreamError
from deepstream.kittidump import KittiDump
from deepstream.muxer import Muxer
from deepstream.osd import Mosaic, draw
from deepstream.perf import PerfMeter
from deepstream.sinks import FileSink, Pacer
from deepstream.sources import Frame, SourceReader

log = logging.getLogger("deepstream")

Result = tuple[list[Frame], list[Objects]]

# More workers than this gain nothing: each holds a batch and the network's intermediate tensors.
_MOST_WORKERS = 4


class Ordered:
    """Hands results over in the order of their numbers, holding at most `room` of them."""

    def __init__(self, room: int, stop: threading.Event):
        self._room = room
        self._stop = stop
        self._results: dict[int, Result] = {}
        self._next = 0
        self._ended = False
        self._changed = threading.Condition()

    def put(self, number: int, result: Result) -> None:
        """Add a result, waiting while it is too far ahead."""
        with self._changed:
            self._changed.wait_for(lambda: number < self._next + self._room or self._stop.is_set())
            self._results[number] = result
            self._changed.notify_all()

    def get(self) -> Result | None:
        """Return the next result in order, None after the last or on a stop."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._next in self._results or self._ended or self._stop.is_set()
            )
            if self._next not in self._results:
                return None
            result = self._results.pop(self._next)
            self._next += 1
            self._changed.notify_all()
            return result

    def end(self) -> None:
        """Say that no further result comes, or that a stop was set."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


class Pipeline:
    """A running config. Build it, `start` it, wait for `finished`, then `close` it."""

    def __init__(
        self, config: AppConfig, *, instance: int = 0, numbered: bool = False, workers: int = 0
    ):
        """Load the model and open nothing else yet.

        `instance` numbers the KITTI files and, when `numbered`, the PERF lines. `workers` is the
        number of inference threads, 0 for a choice that keeps every core busy.
        Raises DeepStreamError when config, model and sinks do not fit.
        """
        self.config = config
        self.perf = PerfMeter(len(config.sources), instance=instance if numbered else None)
        self.finished = threading.Event()
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._detector, workers = self._load_detector(workers)
        self._readers = [
            SourceReader(
                index,
                source,
                size=(config.mux.width, config.mux.height),
                padding=config.mux.enable_padding,
                loop=config.file_loop,
                stop=self._stop,
                failed=self._fail,
            )
            for index, source in enumerate(config.sources)
        ]
        self._mux = Muxer(
            self._readers,
            batch_size=config.mux.batch_size,
            timeout_us=config.mux.timeout_us,
            stop=self._stop,
        )
        self._ordered = Ordered(2 * workers, self._stop)
        self._workers = [
            threading.Thread(target=self._guard(self._detect), name=f"infer{index}", daemon=True)
            for index in range(workers)
        ]
        self._output = threading.Thread(target=self._guard(self._write), name="output", daemon=True)
        self._dump = self._make_dump(instance)
        self._files = self._shown_streams()

    @property
    def stopped_early(self) -> bool:
        """Whether the pipeline was told to quit before its sources had ended."""
        return self._stop.is_set()

    def start(self) -> None:
        """Start all threads."""
        for thread in (*self._readers, *self._workers, self._output):
            thread.start()
        threading.Thread(target=self._await_workers, daemon=True).start()

    def quit(self) -> None:
        """End early: what is in flight is dropped, files are finished."""
        self._stop.set()
        self._ordered.end()

    def pause(self) -> None:
        """Stop the flow of frames."""
        self._mux.pause()

    def resume(self) -> None:
        """Let frames flow again."""
        self._mux.resume()

    def close(self) -> None:
        """Wait for the threads; raise the error that ended the pipeline, if one did."""
        for thread in (self._output, *self._workers, *self._readers):
            thread.join(timeout=10)
        if self.error is not None:
            raise self.error

    def _load_detector(self, workers):
        gie = self.config.gie
        if gie is None:
            return None, 1
        overrides = dict(gie.overrides)
        # nvinfer cannot take larger batches than its own, so the mux's size does not raise it.
        infer = inferconfig.load(gie.config_file, overrides=overrides)
        if self.config.mux.batch_size > infer.batch_size:
            raise DeepStreamError(
                f"{self.config.path}: [streammux] batch-size={self.config.mux.batch_size} exceeds "
                f"batch-size={infer.batch_size} of {gie.config_file.name}"
            )
        workers = workers or min(_MOST_WORKERS, job_threads())
        # Calls at the same time lose less to waiting than one call on all cores. The session's
        # threads are shared by the calls, and every caller computes as well.
        return Detector(infer, threads=max(1, job_threads() - workers + 1)), workers

    def _make_dump(self, instance):
        if self.config.kitti_dir is None or self._detector is None:
            return None
        return KittiDump(self.config.kitti_dir, self._detector.config, instance=instance)

    def _shown_streams(self):
        """The file sinks of each stream; None is the tiled picture of all."""
        shown: dict[int | None, list] = {}
        streams = len(self.config.sources)
        for sink in self.config.sinks:
            if sink.type != FILE_SINK:
                continue
            stream = None if self.config.tiler else sink.source_id
            if stream is not None and stream >= streams:
                raise DeepStreamError(
                    f"{self.config.path}: a sink's source-id={stream}, there are {streams} sources"
                )
            shown.setdefault(stream, []).append(sink)
        return shown

    def _fail(self, error):
        if self.error is None:
            self.error = error
        self.quit()

    def _guard(self, work):
        def run():
            try:
                work()
            except Exception as error:  # noqa: BLE001 - raised again by close()
                self._fail(error)

        return run

    def _await_workers(self):
        for worker in self._workers:
            worker.join()
        self._ordered.end()
        self._output.join()
        self.finished.set()

    def _detect(self):
        interval = self._detector.config.interval + 1 if self._detector else 1
        while (taken := self._mux.next_batch()) is not None:
            number, batch = taken
            if self._detector is None or number % interval:
                objects = [NOTHING] * len(batch)
            else:
                objects = self._detector.detect([frame.surface for frame in batch])
            self._ordered.put(number, (batch, objects))

    def _write(self):
        writer = _Writer(self)
        try:
            while (result := self._ordered.get()) is not None:
                for frame, objects in zip(*result, strict=True):
                    writer.write(frame, objects)
        except BaseException:
            writer.abandon()
            raise
        writer.close()


class _Writer:
    """The output thread's state: dumps, drawings, encoders and the clock of sync=1."""

    def __init__(self, pipeline):
        config = pipeline.config
        self._config = config
        self._perf = pipeline.perf
        self._dump = pipeline._dump
        self._infer = pipeline._detector.config if pipeline._detector else None
        self._mosaic = Mosaic(config.tiler) if config.tiler else None
        synced = any(sink.sync for sink in config.sinks)
        self._pacer = Pacer(pipeline._stop) if synced else None
        self._sinks = {}
        for stream, sinks in pipeline._files.items():
            size = config.mux if stream is not None else config.tiler
            self._sinks[stream] = [FileSink(sink, size.width, size.height) for sink in sinks]

    def write(self, frame, objects):
        if self._pacer:
            self._pacer.wait(frame.time_s)
        if self._dump:
            self._dump.write(frame.source, frame.number, objects)
        if self._mosaic and self._sinks:
            self._mosaic.update(frame.source, self._picture(frame, objects))
            # One picture a round: the last stream of a round completes it.
            if frame.source == len(self._config.sources) - 1:
                for sink in self._sinks[None]:
                    sink.write(self._mosaic.picture, frame.time_s)
        elif frame.source in self._sinks:
            picture = self._picture(frame, objects)
            for sink in self._sinks[frame.source]:
                sink.write(picture, frame.time_s)
        self._perf.count(frame.source)

    def _picture(self, frame, objects):
        picture = frame.surface.to_rgb()
        if self._config.osd and self._infer:
            draw(picture, objects, self._infer, self._config.gie, self._config.osd)
        return picture

    def close(self):
        for sinks in self._sinks.values():
            for sink in sinks:
                sink.close()

    def abandon(self):
        for sinks in self._sinks.values():
            for sink in sinks:
                sink.abandon()
