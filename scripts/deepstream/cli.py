"""The command line of the desk deepstream-app: NVIDIA's options, messages and exit codes."""

import argparse
import logging
import os
import platform
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from deepstream import appconfig
from deepstream.errors import DeepStreamError
from deepstream.network import providers
from deepstream.pipeline import Pipeline

_FAILURE = 255
_POLL_S = 0.04
_HELP = "\nRuntime commands:\n\th: Print this help\n\tq: Quit\n\n\tp: Pause\n\tr: Resume\n"


def main(argv: list[str] | None = None) -> int:
    """Run the program; 0 after an end of stream, q or SIGINT, 255 after any failure."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="** %(levelname)s: %(message)s", stream=sys.stderr)
    logging.addLevelName(logging.WARNING, "WARN")
    logging.getLogger("deepstream").setLevel(logging.INFO)
    if arguments.version or arguments.version_all:
        _say("\n".join(_versions(everything=arguments.version_all)))
        return 0
    if not arguments.config:
        _say("Specify config file with -c option")
        return _finish(_FAILURE)
    return _finish(_run(arguments.config, tuple(arguments.input_uri)))


def _parser():
    parser = argparse.ArgumentParser(
        prog="deepstream-app", description="Runs deepstream-app configs on this computer."
    )
    parser.add_argument(
        "-c", "--cfg-file", dest="config", type=Path, action="append", help="config file (.txt)"
    )
    parser.add_argument(
        "-i", "--input-uri", action="append", default=[], help="replaces a source's uri"
    )
    parser.add_argument("-v", "--version", action="store_true", help="print the version")
    parser.add_argument("--version-all", action="store_true", help="print all versions")
    return parser


def _versions(*, everything):
    try:
        own = metadata.version("face-mask-workflow")
    except metadata.PackageNotFoundError:
        own = "unknown"
    lines = [
        f"deepstream-app version {own} (desk, nvinfer semantics of DeepStreamSDK 9.1)",
    ]
    if everything:
        lines += [
            f"ONNX Runtime Version: {metadata.version('onnxruntime')} ({', '.join(providers())})",
            f"PyAV Version: {metadata.version('av')}",
            f"OpenCV Version: {metadata.version('opencv-python-headless')}",
            f"Python Version: {platform.python_version()} on {platform.machine()}",
            "CUDA, TensorRT and cuDNN: not used",
        ]
    return lines


def _say(text):
    print(text, flush=True)


def _finish(code):
    _say("App run successful" if code == 0 else "App run failed")
    return code


def _run(configs, uris):
    pipelines = []
    try:
        for index, path in enumerate(configs):
            config = appconfig.load(path, uris=uris)
            pipelines.append(Pipeline(config, instance=index, numbered=len(configs) > 1))
        with _interrupts() as interrupted, _keys() as pressed:
            _operate(pipelines, interrupted, pressed)
        for pipeline in pipelines:
            pipeline.close()
    except DeepStreamError as error:
        for pipeline in pipelines:
            pipeline.quit()
        print(f"** ERROR: {error}", file=sys.stderr, flush=True)
        return _FAILURE
    return 0


def _operate(pipelines, interrupted, pressed):
    """Start the pipelines and attend to them until all have finished."""
    _say(_HELP)
    for pipeline in pipelines:
        pipeline.start()
    _say("** INFO: Pipeline running\n")
    due = {id(p): time.monotonic() + (p.config.perf_interval_s or 0) for p in pipelines}
    while not all(pipeline.finished.wait(_POLL_S) for pipeline in pipelines):
        for pipeline in pipelines:
            interval = pipeline.config.perf_interval_s
            if interval and time.monotonic() >= due[id(pipeline)]:
                due[id(pipeline)] += interval
                _say(pipeline.perf.sample())
        key = next(pressed)
        if interrupted:
            _say("** ERROR: User Interrupted..\n")
            key = "q"
            interrupted.clear()
        _obey(key, pipelines)
    if not any(pipeline.stopped_early for pipeline in pipelines):
        _say("** INFO: Received EOS. Exiting ...\n")
    _say("Quitting")


def _obey(key, pipelines):
    if key == "h":
        _say(_HELP)
    for pipeline in pipelines:
        if key == "q":
            pipeline.quit()
        elif key == "p":
            pipeline.pause()
        elif key == "r":
            pipeline.resume()


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collect SIGINT in a list instead of raising KeyboardInterrupt; nothing else is touched."""
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _keys() -> Iterator[Iterator[str]]:
    """Yield an iterator over pressed keys, "" for none; a terminal gives them without Enter."""
    descriptor = _standard_input()
    settings = None
    if descriptor is not None and os.isatty(descriptor):
        settings = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor)
    try:
        yield _pressed(descriptor)
    finally:
        if settings:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, settings)


def _standard_input():
    """File descriptor of standard input, None when it is closed or no file."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, ValueError, OSError):
        return None


def _pressed(descriptor):
    # deepstream-app polls an ended stdin for ever and prints an empty line each time; here an end
    # is an end, so that `</dev/null` is quiet.
    while descriptor is not None:
        ready, _, _ = select.select([descriptor], [], [], 0)
        if not ready:
            yield ""
            continue
        typed = os.read(descriptor, 64)
        if not typed:
            break
        yield from typed.decode(errors="ignore")
    while True:
        yield ""
