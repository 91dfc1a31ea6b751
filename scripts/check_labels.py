"""Draw the boxes of one dataset's KITTI files into a contact sheet, to be looked at."""

import math
from collections.abc import Sequence
from pathlib import Path

from class_colors import CLASS_COLORS
from datasets import tables
from datasets.errors import DatasetError
from datasets.program import Log, reported
from PIL import Image, ImageDraw, ImageFont

COLUMNS, ROWS = 6, 8
CELL_WIDTH, MARGIN, FONT_SIZE = 320, 6, 11
PAPER, INK = (255, 255, 255), (20, 20, 20)


def read_label(path: Path) -> list[tuple[str, tuple[float, float, float, float]]]:
    """The class and the box, in pixels, of each line of a KITTI label file.

    Raises DatasetError for a line that is not 15 columns with numbers for the box.
    """
    faces = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split()
        try:
            if len(words) != 15:
                raise ValueError(f"{len(words)} columns, not 15")
            x1, y1, x2, y2 = map(float, words[4:8])
        except ValueError as error:
            raise DatasetError(
                f"{path} line {number}: {error}; convert the images again"
            ) from error
        faces.append((words[0], (x1, y1, x2, y2)))
    return faces


def sheet(
    names: Sequence[str], folder: Path, classes: Sequence[str], title: str, log: Log
) -> Image.Image:
    """A contact sheet of the images `names` in `folder`/images with their labels' boxes."""
    colours = {name: CLASS_COLORS[index % len(CLASS_COLORS)] for index, name in enumerate(classes)}
    font = ImageFont.load_default(FONT_SIZE)
    cells = [
        cell(folder, name, colours, font)
        for name in log.progress(names, len(names), "contact sheet")
    ] or [empty_cell("no image was chosen", font)]
    width, height = cells[0].size
    columns = min(COLUMNS, len(cells))
    head = 2 * FONT_SIZE + 2 * MARGIN
    page = Image.new(
        "RGB",
        (
            max(columns * (width + MARGIN) + MARGIN, 480),
            head + math.ceil(len(cells) / columns) * (height + MARGIN),
        ),
        PAPER,
    )
    draw = ImageDraw.Draw(page)
    x = legend(draw, colours, ImageFont.load_default(FONT_SIZE + 3))
    draw.text((x, MARGIN), title, INK, ImageFont.load_default(FONT_SIZE + 3))
    for index, picture in enumerate(cells):
        row, column = divmod(index, columns)
        page.paste(picture, (MARGIN + column * (width + MARGIN), head + row * (height + MARGIN)))
    return page


def legend(draw: ImageDraw.ImageDraw, colours: dict[str, tuple], font: ImageFont.ImageFont) -> int:
    """Draw a box and a name per class; where the next text can start."""
    x = MARGIN
    for name, colour in colours.items():
        draw.rectangle((x, MARGIN, x + 16, MARGIN + 16), outline=colour, width=3)
        draw.text((x + 22, MARGIN), name, INK, font)
        x += 22 + int(draw.textlength(name, font)) + 4 * MARGIN
    return x


def cell(
    folder: Path, name: str, colours: dict[str, tuple], font: ImageFont.ImageFont
) -> Image.Image:
    """One image with its boxes, scaled down, its name below."""
    with Image.open(folder / "images" / f"{name}.jpg") as image:
        scale = CELL_WIDTH / image.width
        picture = image.convert("RGB").resize((CELL_WIDTH, round(image.height * scale)))
    page = Image.new("RGB", (picture.width, picture.height + FONT_SIZE + MARGIN), PAPER)
    page.paste(picture)
    draw = ImageDraw.Draw(page)
    for target, box in read_label(folder / "labels" / f"{name}.txt"):
        if target not in colours:
            raise DatasetError(f"{name}: class {target} is none of {', '.join(colours)}")
        corners = [value * scale for value in box]
        draw.rectangle(corners, outline=colours[target], width=2)
    text = name
    while draw.textlength(text, font) > CELL_WIDTH:
        text = text[:-2] + "…"
    draw.text((0, picture.height + 1), text, INK, font)
    return page


def empty_cell(text: str, font: ImageFont.ImageFont) -> Image.Image:
    """A cell with a text in the place of an image."""
    page = Image.new("RGB", (CELL_WIDTH, 4 * FONT_SIZE), PAPER)
    ImageDraw.Draw(page).text((0, FONT_SIZE), text, INK, font)
    return page


def chosen_names(manifest: str | Path) -> list[str]:
    """The first images of a manifest; names start with a hash, so these are a fair sample.

    None where `category_limit` was full before the dataset's turn came.
    """
    rows = tables.read(manifest, tables.MANIFEST)
    names = [row["name"] for row in rows if not row["error"]]
    return names[: COLUMNS * ROWS]


def write_sheet(manifest: Path, output: Path, classes: Sequence[str], title: str, log: Log) -> None:
    """Write the contact sheet of a dataset's manifest, as PNG or JPEG by the output's suffix."""
    page = sheet(chosen_names(manifest), manifest.parent, classes, title, log)
    part = output.with_name(f"{output.stem}.part{output.suffix}")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        page.save(part, quality=90)
        part.replace(output)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        write_sheet(
            Path(snakemake.input.manifest),
            Path(snakemake.output[0]),
            snakemake.params.classes,
            f"{snakemake.wildcards.dataset}, {snakemake.wildcards.split}",
            job_log,
        )
