"""Turns a .tlt of NVIDIA's toolkits into the Keras HDF5 that it holds, with their own codec.

As a program: python scripts/decrypt_model.py MODEL.tlt MODEL.hdf5, with the key in ETLT_KEY and an
interpreter that has the codec in ETLT_CODEC_PYTHON.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from etlt.codec import Codec, key_from_environment
from etlt.environment import Environment
from etlt.errors import EtltError

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake


def decrypt_model(tlt: Path, hdf5: Path, environment: Path | None = None) -> None:
    """Write the HDF5 file; it appears whole or not at all.

    Args:
        tlt: the encrypted model.
        hdf5: the file to write.
        environment: environment.json of the codec; without it the one of ETLT_CODEC_PYTHON.

    Raises:
        EtltError: without a key or the codec, or when the key is another one.
    """
    codec = (
        Codec.from_environment()
        if environment is None
        else Codec(Environment.read(environment).python)
    )
    codec.decrypt_tlt(tlt, hdf5, key_from_environment())


def main() -> None:
    """Decrypt what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tlt", type=Path, help="encrypted model")
    parser.add_argument("hdf5", type=Path, help="file to write")
    args = parser.parse_args()
    try:
        decrypt_model(args.tlt, args.hdf5)
    except EtltError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    if "snakemake" not in globals():
        main()
    else:
        try:
            decrypt_model(
                Path(snakemake.input.model),
                Path(snakemake.output[0]),
                Path(snakemake.input.codec),
            )
        except EtltError as problem:
            Path(snakemake.log[0]).write_text(f"error: {problem}\n", encoding="utf-8")
            sys.exit(f"error: {problem}")
        done = f"{snakemake.output[0]}: what {snakemake.input.model} holds"
        Path(snakemake.log[0]).write_text(f"{done}\n", encoding="utf-8")
