"""What every reader yields: an image with its annotated faces, before any look at the image."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Face:
    """One annotated face.

    `box` is x1, y1, x2, y2 in pixels of the raw image, as annotated: it may be inverted or leave
    the image. `dropped` is the class rule that leaves the face out; `malformed` says what is
    wrong with the annotation itself. Both are empty for a face that counts.
    """

    raw_class: str
    box: tuple[float, float, float, float] | None
    dropped: str = ""
    malformed: str = ""

    @property
    def counts(self) -> bool:
        """Whether neither a class rule nor a fault leaves the face out."""
        return not self.dropped and not self.malformed


@dataclass(slots=True)
class AnnotatedImage:
    """An image named by an annotation, or found without one.

    `path` is relative to the split's images folder, with forward slashes. `error` is set when the
    image as a whole is unusable (no annotation, no image, annotation cut short, ...). `size` is the
    width and height that the annotation names, None where it names none.
    """

    path: str
    faces: list[Face] = field(default_factory=list)
    error: str = ""
    size: tuple[int, int] | None = None
