"""Chapter with the contact sheets of converted images and their labels."""

from PIL import Image

from report.blocks import Block, Gallery, Missing, Picture, Section
from report.errors import ReportError
from report.pictures import picture
from report.results import Results

# Enough to judge boxes on, small enough to mail.
SHEET_WIDTH = 1000
SHEET_BYTES = 260_000


def section(results: Results) -> Section:
    """The sheets that are there, from check_labels/."""
    pictures, missing = [], []
    for split in results.splits:
        for dataset in results.datasets(split):
            path = f"check_labels/{split}/{dataset}.jpg"
            if not results.exists(path):
                missing.append(path)
                continue
            pictures.append(sheet(results, path, f"{dataset} · {split}"))
    blocks: list[Block] = []
    if pictures:
        blocks.append(
            Gallery("Converted images with their labels", "", pictures, 420, is_detailed=True)
        )
    if missing:
        command = results.command("check_labels")
        blocks.append(Missing("Contact sheets", missing[0], (command,), len(missing) - 1))
    lead = "What the network is shown: a sample of each dataset after conversion."
    return Section("labels", "Labels", lead if pictures else "", blocks)


def sheet(results: Results, path: str, title: str) -> Picture:
    """A contact sheet; raises ReportError for a file that is no image."""
    try:
        with Image.open(results.root / path) as image:
            return picture(image, title, "", SHEET_WIDTH, SHEET_BYTES)
    except OSError as error:
        raise ReportError(
            f"{results.root / path}: is no image ({type(error).__name__}); "
            f"delete it and run `{results.command('check_labels')}`"
        ) from error
