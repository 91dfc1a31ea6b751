"""The container of an `.etlt`: int32 little-endian length of a name, the name, the ciphertext.

The name is that of the input of a UFF payload; an ONNX payload has none, length 0. A `.tlt` is the
ciphertext of a Keras HDF5 file alone.
"""

import struct
from typing import BinaryIO

from etlt.errors import EtltError

_LENGTH = struct.Struct("<i")
# Names of tensors are short: a larger number is no length but the beginning of another file.
_LONGEST_NAME = 1024

ONNX, HDF5, UFF = "ONNX", "HDF5", "UFF"
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def write_header(file: BinaryIO, name: str = "") -> None:
    """Write the header; `name` is the input of a UFF payload, empty for ONNX."""
    encoded = name.encode()
    file.write(_LENGTH.pack(len(encoded)) + encoded)


def read_header(file: BinaryIO, place: str) -> str:
    """Read the header and return the name, leaving the file at the ciphertext.

    Args:
        file: at its start.
        place: names the file in a message.

    Raises:
        EtltError: when this is no header of an .etlt.
    """
    start = file.read(_LENGTH.size)
    length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else -1
    name = file.read(length) if 0 <= length <= _LONGEST_NAME else b""
    if length != len(name) or not name.isascii():
        raise EtltError(
            f"{place}: not an .etlt (no length of a name at its start): damaged, a Git LFS "
            "pointer, or another kind of file"
        )
    return name.decode()


def payload_kind(start: bytes) -> str | None:
    """Tell a decrypted payload by its first bytes: ONNX, HDF5, or None for neither.

    A wrong key gives noise, never an error, so this is how it shows. ONNX is a ModelProto, whose
    first field is its number 1, ir_version, a small number.
    """
    if start.startswith(_HDF5_SIGNATURE):
        return HDF5
    if len(start) > 2 and start[0] == 0x08 and start[1] < 0x40 and start[2] in _ONNX_FIELDS:
        return ONNX
    return None


# Keys of the fields of a ModelProto that writers put second: opset_import 8, producer_name 2,
# producer_version 3, domain 4, model_version 5, doc_string 6, graph 7, metadata_props 14.
_ONNX_FIELDS = {0x42, 0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x72}
