"""nvinfer's labels file: one class a line, the line is the class id."""

from pathlib import Path

from deepstream.errors import DeepStreamError


def read_labels(path: Path) -> list[str]:
    """Read labels as nvinfer does: empty lines take no id, the text before the first `;` counts.

    Nothing is stripped, so that a carriage return stays visible in what is written, as on a device.
    Raises DeepStreamError when the file cannot be opened, which stops nvinfer as well.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise DeepStreamError(f"{path}: labels file: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DeepStreamError(f"{path}: labels file is not UTF-8 text") from error
    return [line.split(";")[0] for line in text.split("\n") if line]


def check_class_names(classes: list[str]) -> None:
    """Raise DeepStreamError for class names that a labels file or a KITTI line cannot hold."""
    if not classes:
        raise DeepStreamError("classes: empty, a detector needs at least one")
    for name in classes:
        if not name or any(character.isspace() or character == ";" for character in name):
            raise DeepStreamError(
                f"classes: {name!r} cannot be a label, nvinfer splits at `;` and KITTI at blanks"
            )
    if len(set(classes)) != len(classes):
        raise DeepStreamError(f"classes: {', '.join(classes)}: a name occurs twice")
