"""Lists what all manifests of a split converted, and removes every other file beside it."""

from pathlib import Path

import pandas as pd
from datasets.kitti_folder import remove_orphans


def listing(manifests: list[str]) -> pd.DataFrame:
    """The rows of all manifests, sorted by name, with their dataset."""
    tables = [
        pd.read_csv(path, keep_default_na=False).assign(dataset=Path(path).name.split(".")[0])
        for path in manifests
    ]
    return pd.concat(tables).sort_values("name").reset_index(drop=True)


if __name__ == "__main__":
    output = Path(snakemake.output[0])
    removed = remove_orphans(output.parent, list(snakemake.input.manifests))
    rows = listing(list(snakemake.input.manifests))
    text = f"{(rows['error'] == '').sum()} images, {removed} files of no manifest removed"
    Path(snakemake.log[0]).write_text(text + "\n", encoding="utf-8")
    rows.to_csv(output, index=False)
