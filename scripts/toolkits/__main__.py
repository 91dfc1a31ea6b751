"""Runs a program of NVIDIA's toolkits: python -m toolkits --image IMAGE -- PROGRAM ARGUMENT ...

In a container with --image, else as it is. Exit status: the program's, 130 after an interrupt.
"""

import argparse
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from toolkits.container import docker_run, with_key
from toolkits.errors import ToolkitError

INTERRUPTED = 130
STOP_TIMEOUT_S = 30


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", help="container to run in")
    parser.add_argument("--bind", action="append", default=[], help="another folder that it needs")
    parser.add_argument("--key", choices=["none", "optional", "required"], default="none")
    parser.add_argument(
        "--key-variable", default="ETLT_KEY", help="environment variable of the key"
    )
    parser.add_argument("words", nargs="+", metavar="PROGRAM", help="program and arguments")
    args = parser.parse_args(argv)
    key = os.environ.get(args.key_variable, "")
    try:
        if args.key == "required" and not key:
            raise ToolkitError(
                f"{args.key_variable} is not set: export the key of your models, as in "
                f"`read -rs {args.key_variable} && export {args.key_variable}`"
            )
        name = f"detectnet-{uuid.uuid4().hex[:12]}"
        command = (
            docker_run(
                args.image,
                args.words,
                name=name,
                environment=os.environ,
                key=args.key,
                key_variable=args.key_variable,
                binds=[*args.bind, Path.cwd()],
            )
            if args.image
            else with_key(args.words, args.key, args.key_variable)
        )
        return run(command, secret=key, container=name if args.image else None)
    except ToolkitError as error:
        print(error, file=sys.stderr)
        return 1


def run(command: Sequence[str], *, secret: str, container: str | None = None) -> int:
    """Run a command, pass on what it prints without the secret, and return its exit status.

    An interrupt or SIGTERM is passed on and gives INTERRUPTED whatever the program says: NVIDIA's
    interrupted training ends with 0. `container` is stopped when the program does not end itself.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise ToolkitError(f"{command[0]}: {error.strerror}") from None
    try:
        assert process.stdout is not None
        copy_without(secret.encode(), process.stdout, sys.stdout.buffer)
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _stop(process, container)
        return INTERRUPTED


def copy_without(secret: bytes, source: BinaryIO, target: BinaryIO) -> None:
    """Copy a stream as it comes, with *** in place of the secret."""
    kept = b""
    while chunk := source.read1(1 << 16):
        text = (kept + chunk).replace(secret, b"***") if secret else chunk
        kept = b""
        for length in range(min(len(secret) - 1, len(text)), 0, -1):
            if secret.startswith(text[-length:]):
                text, kept = text[:-length], text[-length:]
                break
        target.write(text)
        target.flush()
    target.write(kept)
    target.flush()


def _stop(process: subprocess.Popen, container: str | None) -> None:
    if container:
        subprocess.run(["docker", "kill", container], capture_output=True, check=False)
    process.kill()
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
