"""What tells one file's content from another's."""

import hashlib
from pathlib import Path


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, as 64 hex digits; OSError where it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
