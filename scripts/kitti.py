"""Convert one dataset's chosen images to the network's size, with KITTI labels."""

from pathlib import Path

from datasets import tables
from datasets.conversion import Settings, convert, tasks_of
from datasets.program import reported

if __name__ == "__main__":
    with reported(snakemake.log[0]) as job_log:
        job_settings = Settings(**snakemake.params.picture)
        manifest = Path(snakemake.output.manifest)
        rows = convert(
            snakemake.wildcards.dataset,
            tasks_of(
                snakemake.wildcards.dataset,
                snakemake.input.selection,
                snakemake.params.root,
                job_settings,
            ),
            manifest.parent,
            job_settings,
            snakemake.params.max_bad_fraction,
            job_log,
            snakemake.threads,
        )
        tables.write(manifest, tables.MANIFEST, rows)
