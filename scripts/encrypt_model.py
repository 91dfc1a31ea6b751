"""Wraps an exported ONNX file as an .etlt, with the key from the environment."""

from pathlib import Path
from tempfile import TemporaryDirectory

from deepstream.job import reported
from etlt.codec import Codec, key_from_environment
from etlt.environment import Environment
from etlt.errors import EtltError


def encrypt_model(onnx: Path, etlt: Path, environment: Path) -> None:
    """Write the .etlt and read it back: it stays only when every byte comes back.

    Args:
        onnx: the exported model.
        etlt: the file to write.
        environment: environment.json of the codec.

    Raises:
        EtltError: without a key or the codec, or when another file comes back.
    """
    codec, key = Codec(Environment.read(environment).python), key_from_environment()
    codec.encrypt(onnx, etlt, key)
    with TemporaryDirectory(prefix="etlt-") as folder:
        back = Path(folder, "model.onnx")
        codec.decrypt(etlt, back, key)
        if back.read_bytes() != onnx.read_bytes():
            etlt.unlink()
            raise EtltError(f"{onnx}: NVIDIA's codec gives back another file than it was given")


if __name__ == "__main__":
    with reported(snakemake.log[0]) as log:
        encrypt_model(
            Path(snakemake.input.onnx),
            Path(snakemake.output[0]),
            Path(snakemake.input.codec),
        )
        log.info("%s: an .etlt around %s", snakemake.output[0], snakemake.input.onnx)
