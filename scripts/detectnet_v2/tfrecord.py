"""TFRecord files and the tf.train.Example messages in them, without TensorFlow.

A record is `uint64 length | uint32 mask(crc(length)) | data | uint32 mask(crc(data))`, little
endian, with CRC-32C and TensorFlow's mask. An Example is a map of names to lists of bytes, floats
or int64 in protobuf's wire format (tensorflow/core/example/{example,feature}.proto); both are
written out here, since the generic runtime takes ten times as long for such small messages.
"""

import struct
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

import google_crc32c
import numpy as np

from detectnet_v2.errors import DetectNetError

Feature = list[bytes] | np.ndarray
"""Values of a feature: bytes, or a float32 or int64 array."""

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_HEADER = _LENGTH.size + _CRC.size

# Field numbers 1, 2, 3 of Feature's oneof.
_BYTES, _FLOAT, _INT64 = 1, 2, 3
_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5


def masked_crc(data: bytes) -> int:
    """Return TensorFlow's masked CRC-32C of `data`: rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def part_of(path: Path) -> Path:
    """Return the name that `path` has while it is being written."""
    return path.with_name(path.name + ".part")


def write_part(path: Path, records: Iterable[bytes]) -> None:
    """Write the TFRecord file `part_of(path)`, for the caller to rename."""
    with part_of(path).open("wb") as stream:
        for data in records:
            length = _LENGTH.pack(len(data))
            stream.write(length + _CRC.pack(masked_crc(length)))
            stream.write(data)
            stream.write(_CRC.pack(masked_crc(data)))


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file.

    Raises:
        DetectNetError: the file cannot be read, ends early, or a checksum is wrong.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DetectNetError(f"{path}: cannot be read: {error.strerror}") from error
    offset = 0
    while offset < len(content):
        length = content[offset : offset + _LENGTH.size]
        header = content[offset : offset + _HEADER]
        if len(header) < _HEADER:
            raise _damaged(path, offset, "ends within the header of a record")
        if _CRC.unpack_from(header, _LENGTH.size)[0] != masked_crc(length):
            raise _damaged(path, offset, "has a wrong checksum of a record's length")
        begin = offset + _HEADER
        end = begin + _LENGTH.unpack(length)[0]
        if end + _CRC.size > len(content):
            raise _damaged(path, offset, "ends within a record")
        data = content[begin:end]
        if _CRC.unpack_from(content, end)[0] != masked_crc(data):
            raise _damaged(path, offset, "has a wrong checksum of a record's data")
        yield data
        offset = end + _CRC.size


def _damaged(path: Path, offset: int, what: str) -> DetectNetError:
    return DetectNetError(f"{path}: {what} (byte {offset}): run dataset_convert again")


def encode_example(features: Mapping[str, Feature]) -> bytes:
    """Return a serialised tf.train.Example; features are written in the order of the mapping."""
    entries = bytearray()
    for name, values in features.items():
        key = name.encode()
        feature = _encode_feature(values)
        # A map is a repeated message of a key (field 1) and a value (field 2).
        entry = b"\x0a" + _varint(len(key)) + key + b"\x12" + _varint(len(feature)) + feature
        entries += b"\x0a" + _varint(len(entry)) + entry
    return b"\x0a" + _varint(len(entries)) + bytes(entries)


def _encode_feature(values: Feature) -> bytes:
    if isinstance(values, list):
        kind = _BYTES
        body = b"".join(b"\x0a" + _varint(len(value)) + value for value in values)
    else:
        if values.dtype == np.float32:
            kind, packed = _FLOAT, values.astype("<f4", copy=False).tobytes()
        elif values.dtype == np.int64:
            kind = _INT64
            packed = b"".join(_varint(value & 0xFFFFFFFFFFFFFFFF) for value in values.tolist())
        else:
            raise TypeError(f"a feature has bytes, float32 or int64, not {values.dtype}")
        body = b"\x0a" + _varint(len(packed)) + packed if packed else b""
    # An empty list is written, too: its kind tells a reader the type of the feature.
    return bytes((kind << 3 | _DELIMITED,)) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_example(data: bytes, names: Container[str] | None = None) -> dict[str, Feature]:
    """Return the features of a serialised tf.train.Example, in the order of the message.

    Args:
        data: the message.
        names: the features that are wanted, to save time; None for all.

    Raises:
        ValueError: the bytes are no Example.
    """
    features = {}
    for number, content in _fields(data):
        if number != 1:
            continue
        for entry_number, entry in _fields(content):
            if entry_number != 1:
                continue
            parts = dict(_fields(entry))
            name = parts.get(1, b"").decode()
            if names is None or name in names:
                features[name] = _decode_feature(parts.get(2, b""))
    return features


def _decode_feature(data: bytes) -> Feature:
    for kind, content in _fields(data):
        if kind == _BYTES:
            return [value for _, value in _fields(content)]
        if kind == _FLOAT:
            # Packed values are one run of bytes, unpacked ones a field each: the same when joined.
            return np.frombuffer(b"".join(value for _, value in _fields(content)), "<f4")
        if kind == _INT64:
            return np.array([v for _, values in _fields(content) for v in _ints(values)], np.int64)
    return []


def _ints(data: bytes) -> Iterator[int]:
    offset = 0
    while offset < len(data):
        value, offset = _read_varint(data, offset)
        yield value - (1 << 64) if value >> 63 else value


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and content of each field of a message; a number's content are its bytes."""
    offset = 0
    while offset < len(data):
        tag, begin = _read_varint(data, offset)
        wire_type = tag & 7
        if wire_type == _DELIMITED:
            length, begin = _read_varint(data, begin)
            offset = begin + length
        elif wire_type == _FIXED32:
            offset = begin + 4
        elif wire_type == _FIXED64:
            offset = begin + 8
        elif wire_type == _VARINT:
            _, offset = _read_varint(data, begin)
        else:
            raise ValueError(f"wire type {wire_type} at byte {offset}")
        if offset > len(data):
            raise ValueError(f"field at byte {begin} leaves the message")
        yield tag >> 3, data[begin:offset]


def _read_varint(data: bytes, offset: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        try:
            byte = data[offset]
        except IndexError:
            raise ValueError("message ends within a number") from None
        offset += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, offset
        shift += 7
        if shift > 63:
            raise ValueError("number of more than 64 bits")
