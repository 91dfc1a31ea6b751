"""Pushes to a board, and what is there afterwards."""

from pathlib import Path

from jetson import push
from jetson.release import Release, gather


def bring(board, *folders: Path, key: str | None = None, **settings) -> push.Sent:
    """Push rendered folders to a board."""
    with board.session(**settings) as session:
        return push.push(session, release_of(*folders, key=key))


def release_of(*folders: Path, key: str | None = None) -> Release:
    """Make a release of rendered folders."""
    return gather({folder.name: folder for folder in folders}, key=key, key_name="MODEL_KEY")


def current(board) -> dict[str, bytes]:
    """Read the files of the current release by path."""
    base = board.root / "current"
    return {
        str(path.relative_to(base)): path.read_bytes()
        for path in sorted(base.rglob("*"))
        if path.is_file() and path.name != "release.sha256"
    }


def local(*folders: Path) -> dict[str, bytes]:
    """Read rendered folders as they should arrive."""
    return {
        f"{folder.name}/{path.name}": path.read_bytes()
        for folder in folders
        for path in sorted(folder.iterdir())
    }
