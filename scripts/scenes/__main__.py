"""The command line: `python -m scenes OUTPUT` draws raw data sets, `--clip` a video."""

from __future__ import annotations

import argparse
import os
import sys

from scenes.clip import CODECS, write_clip
from scenes.errors import ScenesError
from scenes.raw_tree import (
    DEFAULT_DEFECTS,
    DEFAULT_IMAGES,
    DEFAULT_SIZE,
    Count,
    write_raw_tree,
)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    args = _parser().parse_args(arguments)
    if not args.output and not args.clip:
        print(
            "scenes: name a folder for the data sets, or --clip FILE for a video", file=sys.stderr
        )
        return 2
    try:
        if args.output:
            images = _images(args.images)
            counts = write_raw_tree(
                args.output,
                images=images,
                seed=args.seed,
                size=args.size,
                defects=args.defects,
                processes=args.processes,
            )
            print(table(counts))
        if args.clip:
            frames = write_clip(
                args.clip,
                seconds=args.seconds,
                size=args.clip_size,
                rate=args.rate,
                people=args.people,
                seed=args.seed,
                codec=args.codec,
                processes=args.processes,
            )
            print(f"{args.clip}: {frames} frames")
    except ScenesError as error:
        print(f"scenes: {error}", file=sys.stderr)
        return 1
    return 0


def table(counts: dict[str, Count]) -> str:
    """The counts as text, one line a data set."""
    lines = [f"{'data set':<16} {'images':>7} {'mask':>6} {'bare':>6} {'poor':>6} {'broken':>7}"]
    for dataset, count in counts.items():
        mask, bare, poor = (count.faces[state] for state in ("mask", "bare", "poor"))
        lines.append(
            f"{dataset:<16} {count.images:>7} {mask:>6} {bare:>6} {poor:>6} {count.broken:>7}"
        )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scenes",
        description="Draw face data sets in the layouts of the published ones, or a video.",
    )
    parser.add_argument("output", nargs="?", help="folder for the raw data sets; new or empty")
    parser.add_argument("--seed", type=int, default=0, help="other seeds give other pictures")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="N | DATASET=N",
        help="pictures: a total, split as by default, or numbers by data set; by default "
        + " ".join(f"{dataset}={count}" for dataset, count in DEFAULT_IMAGES.items()),
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=DEFAULT_SIZE,
        metavar="WxH",
        help="no picture is larger (640x480)",
    )
    parser.add_argument(
        "--defects",
        type=float,
        default=DEFAULT_DEFECTS,
        metavar="PART",
        help="part of the pictures that is broken on purpose (%(default)s)",
    )
    parser.add_argument(
        "--processes", type=int, default=_cores(), help="drawing processes (%(default)s)"
    )
    clip = parser.add_argument_group("video")
    clip.add_argument("--clip", metavar="FILE.mp4", help="write a video of people walking past")
    clip.add_argument("--seconds", type=float, default=10.0, help="its length (%(default)s)")
    clip.add_argument(
        "--clip-size", type=_size, default=(1280, 720), metavar="WxH", help="1280x720"
    )
    clip.add_argument("--rate", type=int, default=30, help="frames a second (%(default)s)")
    clip.add_argument("--people", type=int, default=6, help="people in it (%(default)s)")
    clip.add_argument("--codec", choices=CODECS, default=CODECS[0], help="encoder (%(default)s)")
    return parser


def _cores() -> int:
    # Those that this process may use; systems without affinity have them all.
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable else os.cpu_count() or 1


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    try:
        return int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as 640x480") from None


def _images(words: list[str]) -> dict[str, int]:
    if not words:
        return dict(DEFAULT_IMAGES)
    if len(words) == 1 and words[0].isdigit():
        part = int(words[0]) / sum(DEFAULT_IMAGES.values())
        return {dataset: round(count * part) for dataset, count in DEFAULT_IMAGES.items()}
    images = {}
    for word in words:
        dataset, _, count = word.partition("=")
        if not count.isdigit():
            raise ScenesError(f"--images {word}: write a total, or data sets as {dataset}=100")
        images[dataset] = int(count)
    return images


if __name__ == "__main__":
    sys.exit(main())
