"""Draws face data sets: people with and without masks in the layouts of the published sets.

`write_raw_tree` writes a tree that the workflow takes as raw data, `write_clip` a moving scene;
`python -m scenes --help` does both from the command line. Nothing here is a photograph, so the
pictures may be shown and passed on.
"""

from scenes.clip import write_clip
from scenes.errors import ScenesError
from scenes.raw_tree import DEFAULT_IMAGES, Count, write_raw_tree

__all__ = ["DEFAULT_IMAGES", "Count", "ScenesError", "write_clip", "write_raw_tree"]
