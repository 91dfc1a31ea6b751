"""Makes the environment of NVIDIA's codec, where its licence is accepted."""

from pathlib import Path

from deepstream.job import reported
from etlt.environment import LICENCE_MISSING, make_environment
from etlt.errors import EtltError

if __name__ == "__main__":
    with reported(snakemake.log[0]) as log:
        if not snakemake.params.licence_accepted:
            raise EtltError(LICENCE_MISSING)
        made = make_environment(
            Path(snakemake.output[0]).parent,
            Path(snakemake.input.requirements),
            named=snakemake.params.python,
        )
        log.info("NVIDIA's codec: %s", made.python)
