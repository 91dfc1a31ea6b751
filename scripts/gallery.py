"""Fetch the pictures of the README from a finished run of the demo.

python scripts/gallery.py results_demo     writes docs/images

Needs Chromium for the two views of the report. Drawn data only: never run it on photographs.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from PIL import Image

IMAGES = Path(__file__).resolve().parents[1] / "docs/images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Name, width of the page and height that is shown, pixels.
VIEWS = (("report-desk.png", 1400, 1500), ("report-phone.png", 400, 1500))
# A browser's window has a least width, a frame has none.
FRAME = """<body style="margin: 0"><iframe src="{page}"
style="border: 0; width: {width}px; height: {height}px"></iframe></body>"""
SHEET_WIDTH = 900
# Legend and title above the pictures of a sheet, pixels.
SHEET_HEAD = 34
COLORS = 128


class GalleryError(Exception):
    """A picture that cannot be had; the message is one line."""


def busiest_frame(video: Path, dumps: Path) -> Image.Image:
    """The frame of an annotated video in which the KITTI dumps hold most boxes, the first such.

    Raises GalleryError when there are none.
    """
    boxes = [len(path.read_text(encoding="utf-8").splitlines()) for path in sorted(dumps.glob("*"))]
    if not boxes:
        raise GalleryError(f"{dumps}: no dump of a frame; run snakemake deploy_local")
    wanted = int(np.argmax(boxes))
    with av.open(str(video)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == wanted:
                return frame.to_image()
    raise GalleryError(f"{video}: ends before frame {wanted}")


def sheet(path: Path) -> Image.Image:
    """The upper half of a contact sheet, made small."""
    with Image.open(path) as image:
        height = SHEET_HEAD + (image.height - SHEET_HEAD) // 2
        upper = image.convert("RGB").crop((0, 0, image.width, height))
    return upper.resize((SHEET_WIDTH, round(upper.height * SHEET_WIDTH / upper.width)))


def view(page: Path, width: int, height: int) -> Image.Image:
    """The top of the report as a browser shows it on a screen of that width.

    Raises GalleryError when there is no Chromium, or it draws nothing.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise GalleryError(f"needs one of {', '.join(BROWSERS)} on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        frame, shot = Path(folder, "frame.html"), Path(folder, "shot.png")
        text = FRAME.format(page=page.resolve().as_uri(), width=width, height=height)
        frame.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             f"--user-data-dir={folder}/profile", "--virtual-time-budget=5000",
             f"--window-size={max(width, 500)},{height}", f"--screenshot={shot}", frame.as_uri()],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if not shot.exists():
            raise GalleryError(f"{browser} drew nothing: {done.stderr.strip()[-300:]}")
        with Image.open(shot) as image:
            return image.convert("RGB").crop((0, 0, width, height))


def gallery(results: Path, images: Path) -> list[Path]:
    """Write all pictures and return their paths.

    Raises GalleryError or FileNotFoundError when the run is not complete.
    """
    images.mkdir(parents=True, exist_ok=True)
    deployed = results / "deployed/local/chosen-gpu"
    pictures = {
        "demo.jpg": busiest_frame(deployed / "video.mp4", deployed / "kitti").resize((960, 540)),
        "labels.jpg": sheet(results / "check_labels/train/kaggle.jpg"),
    }
    for name, width, height in VIEWS:
        pictures[name] = view(results / "report.html", width, height).quantize(COLORS)
    for name, picture in pictures.items():
        picture.save(images / name, quality=85, optimize=True)
    shutil.copyfile(results / "report/tradeoff_parameters.png", images / "tradeoff.png")
    return [*(images / name for name in pictures), images / "tradeoff.png"]


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="the demo's results folder")
    parser.add_argument("--images", type=Path, default=IMAGES, help="where the pictures go")
    args = parser.parse_args()
    try:
        for path in gallery(args.results, args.images):
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    except (GalleryError, OSError) as error:
        print(f"gallery: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
