"""Lists what all manifests of a split converted, and removes every other file beside it.

python -m kitti_listing LOG OUTPUT MANIFEST...
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from datasets import tables
from datasets.kitti_folder import check_complete, remove_orphans, remove_other_tables
from datasets.program import reported

COLUMNS = (*tables.MANIFEST, "dataset")


def listing(manifests: Iterable[str | Path]) -> list[tuple[str, ...]]:
    """The rows of all manifests, sorted by name, with their dataset."""
    rows = [
        (*row.values(), Path(path).name.split(".")[0])
        for path in manifests
        for row in tables.read(path, tables.MANIFEST)
    ]
    return sorted(rows)


if __name__ == "__main__":
    log, listed, *manifests = sys.argv[1:]
    with reported(log) as job_log:
        output = Path(listed)
        removed = remove_other_tables(output.parent, manifests)
        removed += remove_orphans(output.parent, manifests)
        for manifest in manifests:
            check_complete(output.parent, manifest)
        converted = listing(manifests)
        images = sum(not row[COLUMNS.index("error")] for row in converted)
        job_log(f"{images} images, {removed} files of no manifest removed")
        tables.write(output, COLUMNS, converted)
