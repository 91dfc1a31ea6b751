"""TFRecord files and Examples without TensorFlow."""

import json
import struct

import numpy as np
import pytest
from detectnet_v2 import tfrecord
from detectnet_v2.errors import DetectNetError
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FEATURES = {
    "frame/id": [b"images/000001"],
    "frame/width": np.array([960]),
    "target/occlusion": np.array([0, -1, 1 << 40, -(1 << 63)]),
    "target/coordinates_x1": np.array([1.5, -2.25, 3e8], np.float32),
    "target/object_class": [b"mask", b"", b"no-mask"],
    "empty/bytes": [],
    "empty/float": np.array([], np.float32),
    "empty/int": np.array([], np.int64),
}


def write(path, records):
    tfrecord.write_part(path, records)
    tfrecord.part_of(path).replace(path)


def test_the_masked_checksum():
    assert tfrecord.masked_crc(b"123456789") == 0xC78AB0E5


def test_an_example_comes_back():
    decoded = tfrecord.decode_example(tfrecord.encode_example(FEATURES))
    assert list(decoded) == list(FEATURES)
    for name, values in FEATURES.items():
        if len(values):
            assert np.array_equal(decoded[name], values), name
            assert isinstance(values, list) or decoded[name].dtype == values.dtype
        else:
            assert len(decoded[name]) == 0
    encoded = tfrecord.encode_example(FEATURES)
    assert tfrecord.decode_example(encoded, {"frame/width"}) == {"frame/width": [960]}


def test_the_bytes_of_an_example():
    # Example{features: Features{feature: {"a": Feature{int64_list: {value: [300]}}}}}
    assert tfrecord.encode_example({"a": np.array([300])}) == bytes.fromhex(
        "0a0d 0a0b 0a0161 1206 1a04 0a02 ac02".replace(" ", "")
    )
    # An empty list still has its kind.
    assert tfrecord.encode_example({"a": np.array([], np.float32)}).endswith(b"\x12\x02\x12\x00")


def test_values_that_are_not_packed_are_read():
    # Feature{int64_list: {value: 1 value: 2}} and float_list, each value a field of its own.
    ints = b"\x1a\x04\x08\x01\x08\x02"
    floats = b"\x12\x0a" + b"".join(b"\x0d" + struct.pack("<f", value) for value in (1.5, 2.5))
    for feature, expected in ((ints, [1, 2]), (floats, [1.5, 2.5])):
        entry = b"\x0a\x01a\x12" + bytes([len(feature)]) + feature
        features = b"\x0a" + bytes([len(entry)]) + entry
        example = b"\x0a" + bytes([len(features)]) + features
        assert tfrecord.decode_example(example)["a"].tolist() == expected


@pytest.mark.parametrize("data", [b"\x0a\x7f", b"\x0a", b"\x0b", b"\x08" + b"\xff" * 11])
def test_bytes_that_are_no_example(data):
    with pytest.raises(ValueError, match=r"field|message|wire type|64 bits"):
        tfrecord.decode_example(data)


def test_a_file_comes_back(tmp_path):
    path = tmp_path / "records"
    records = [b"", b"a", bytes(1000)]
    write(path, records)
    assert list(tfrecord.read_records(path)) == records
    assert path.read_bytes()[:12] == struct.pack("<QI", 0, tfrecord.masked_crc(bytes(8)))
    assert [item.name for item in tmp_path.iterdir()] == ["records"]


def test_a_failed_file_leaves_the_one_before(tmp_path):
    def records():
        yield b"a"
        raise DetectNetError("no more")

    path = tmp_path / "records"
    path.write_bytes(b"before")
    with pytest.raises(DetectNetError):
        tfrecord.write_part(path, records())
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:5], "ends within the header"),
        (lambda data: data[:14], "ends within a record"),
        (lambda data: data[:-1], "ends within a record"),
        (lambda data: b"\x01" + data[1:], "wrong checksum of a record's length"),
        (lambda data: data[:12] + b"X" + data[13:], "wrong checksum of a record's data"),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    path = tmp_path / "records"
    write(path, [b"content"])
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DetectNetError, match=f"records: .*{message}.*run dataset_convert again"):
        list(tfrecord.read_records(path))
    with pytest.raises(DetectNetError, match="nothing: cannot be read"):
        list(tfrecord.read_records(tmp_path / "nothing"))


SCHEMA = """
syntax = "proto3";
message BytesList { repeated bytes value = 1; }
message FloatList { repeated float value = 1 [packed = true]; }
message Int64List { repeated int64 value = 1 [packed = true]; }
message Feature {
  oneof kind { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; }
}
message Features { map<string, Feature> feature = 1; }
message Example { Features features = 1; }
"""


@pytest.fixture(scope="module")
def example_type(tmp_path_factory):
    """The class of tf.train.Example, made by protobuf's compiler from its schema."""
    protoc = pytest.importorskip("grpc_tools.protoc")
    folder = tmp_path_factory.mktemp("schema")
    (folder / "example.proto").write_text(SCHEMA)
    target = folder / "example.set"
    arguments = ["protoc", f"-I{folder}", f"--descriptor_set_out={target}", "example.proto"]
    assert protoc.main(arguments) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("Example"))


def check_example(example):
    assert set(example.features.feature) == set(FEATURES)
    for name, values in FEATURES.items():
        feature = example.features.feature[name]
        kind = "bytes" if isinstance(values, list) else str(values.dtype).replace("t32", "t")
        assert feature.WhichOneof("kind") == f"{kind}_list"
        assert list(getattr(feature, f"{kind}_list").value) == list(values)


def test_protobuf_reads_and_writes_the_same(example_type):
    example = example_type.FromString(tfrecord.encode_example(FEATURES))
    check_example(example)
    again = tfrecord.decode_example(example.SerializeToString())
    assert set(again) == set(FEATURES)
    for name, values in FEATURES.items():
        assert np.array_equal(again[name], values), name


def test_tensorboard_reads_the_file(tmp_path):
    reader = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")
    path = tmp_path / "records"
    write(path, [b"first", bytes(1000)])
    records = reader.PyRecordReader_New(str(path))
    for expected in (b"first", bytes(1000)):
        records.GetNext()
        assert records.record() == expected


@pytest.mark.slow
def test_tensorflow_reads_and_writes_the_same(tensorflow, tmp_path):
    path, again = tmp_path / "records", tmp_path / "again"
    write(path, [tfrecord.encode_example(FEATURES)])
    tensorflow("records", tmp_path / "records.json", path)
    (((record,),),) = [json.loads((tmp_path / "records.json").read_text())]
    assert set(record) == set(FEATURES)
    for name, values in FEATURES.items():
        kind, found = record[name]
        if isinstance(values, list):
            assert (kind, found) == ("bytes_list", [value.decode() for value in values])
        else:
            assert kind == ("int64_list" if values.dtype.kind == "i" else "float_list")
            assert np.array_equal(np.array(found, values.dtype), values)
    tensorflow("rewrite", path, again)
    (record,) = tfrecord.read_records(again)
    for name, values in tfrecord.decode_example(record).items():
        assert np.array_equal(values, FEATURES[name]), name
