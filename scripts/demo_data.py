"""Rule `demo_data`: draws the raw data sets and the clip of the demonstration."""

import sys
from pathlib import Path

from scenes import ScenesError, write_clip, write_raw_tree
from scenes.__main__ import table


def make_demo_data(raw, clip, *, images, seed, size, clip_seconds, clip_size, processes):
    """Draw the raw tree `raw` and the video `clip`; prints what was drawn.

    `images`: pictures by data set; `size`: the largest picture, `clip_size`: the video's, both
    (width, height) in pixels. An empty folder `raw` is replaced.
    """
    folder = Path(raw)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    counts = write_raw_tree(folder, images=images, seed=seed, size=tuple(size), processes=processes)
    print(table(counts))
    frames = write_clip(clip, seconds=clip_seconds, size=tuple(clip_size), seed=seed)
    print(f"{clip}: {frames} frames")


if __name__ == "__main__":
    with Path(snakemake.log[0]).open("w") as log:
        sys.stdout = sys.stderr = log
        try:
            make_demo_data(
                snakemake.output.raw,
                snakemake.output.clip,
                images=snakemake.params.images,
                seed=snakemake.params.seed,
                size=snakemake.params.size,
                clip_seconds=snakemake.params.clip_seconds,
                clip_size=snakemake.params.clip_size,
                processes=snakemake.threads,
            )
        except ScenesError as error:
            sys.exit(f"demo_data: {error}")
