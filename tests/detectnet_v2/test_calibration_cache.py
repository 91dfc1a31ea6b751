"""Calibration caches: TensorRT's text format, golden values, what is refused."""

import pytest
from detectnet_v2.calibration_cache import (
    activation_tensors,
    check_coverage,
    read_cache,
    version_number,
    write_cache,
)
from detectnet_v2.errors import DetectNetError
from detectnet_v2.onnx_graph import onnx_model


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("7.0.0", 7000),
        ("7.1.3", 7103),
        ("8.2", 8200),
        ("8.2.1.8", 8201),
        ("8.5.10", 8510),
        ("10.3.0", 100300),
        ("10.13.2.6", 101302),
    ],
)
def test_version_numbers_of_headers(version, number):
    assert version_number(version) == number


def test_bad_version_is_refused():
    with pytest.raises(DetectNetError, match="--trt_version eight"):
        version_number("eight")


def test_file_is_the_text_that_tensorrt_writes(tmp_path):
    path = tmp_path / "cal.bin"
    write_cache(path, {"input_1": 1 / 127, "conv1/BiasAdd": 0.5}, "8.2.1")
    assert path.read_bytes() == (
        b"TRT-8201-EntropyCalibration2\ninput_1: 3c010204\nconv1/BiasAdd: 3f000000\n"
    )


def test_round_trip(tmp_path):
    path = tmp_path / "cal.bin"
    write_cache(path, {"a": 0.25, "b": 3.0}, "10.3.0")
    cache = read_cache(path)
    assert (cache.version, cache.algorithm) == (100300, "EntropyCalibration2")
    assert cache.scales == {"a": 0.25, "b": 3.0}


def test_caches_of_tensorrt_are_read(tmp_path):
    path = tmp_path / "cal.bin"
    path.write_text(
        "TRT-7103-EntropyCalibration2\r\ninput_1: 3c010a14\n"
        "(Unnamed Layer* 4) [Activation]: output: 3D8F9F6C\nzero_padded: 0000001\n\n"
    )
    scales = read_cache(path).scales
    assert scales["input_1"] * 127 == pytest.approx(1.0002, abs=1e-4)
    assert "(Unnamed Layer* 4) [Activation]: output" in scales
    assert len(scales) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ":1: 'empty'"),
        ("hello\n", ":1: 'hello' is not the header"),
        ("TRT-x-EntropyCalibration2\n", ":1: "),
        ("TRT-8201-EntropyCalibration2\ninput_1 3c010204\n", ":2: "),
        ("TRT-8201-EntropyCalibration2\ninput_1: xyz\n", ":2: "),
        ("TRT-8201-EntropyCalibration2\ninput_1: 3c0102040\n", ":2: "),
        ("TRT-8201-EntropyCalibration2\na: 3c010204\nb: 00000000\n", ":3: "),
        ("TRT-8201-EntropyCalibration2\na: 7f800000\n", ":2: "),
        ("TRT-8201-EntropyCalibration2\na: 7fc00000\n", ":2: "),
        ("TRT-8201-EntropyCalibration2\na: bc010204\n", ":2: "),
    ],
)
def test_damaged_caches_are_refused_with_the_line(tmp_path, text, message):
    path = tmp_path / "cal.bin"
    path.write_text(text)
    with pytest.raises(DetectNetError) as caught:
        read_cache(path)
    assert f"{path}{message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files_are_refused(tmp_path):
    with pytest.raises(DetectNetError, match="cannot read the calibration cache"):
        read_cache(tmp_path / "absent.bin")
    (tmp_path / "binary.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DetectNetError, match="cannot read the calibration cache"):
        read_cache(tmp_path / "binary.bin")


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), 1e-60])
def test_impossible_scales_are_not_written(tmp_path, scale):
    with pytest.raises(DetectNetError, match="the scale of a"):
        write_cache(tmp_path / "cal.bin", {"a": scale}, "8.2.1")
    assert not list(tmp_path.iterdir())


def test_coverage_of_a_network(make_model, tmp_path):
    tensors = activation_tensors(onnx_model(make_model(10, 2, input_height=32, input_width=32)))
    assert tensors[:3] == ["input_1", "conv1/BiasAdd", "activation_1/Relu"]
    assert "output_cov/Sigmoid" in tensors
    assert not any("kernel" in name for name in tensors)
    path = tmp_path / "cal.bin"
    write_cache(path, dict.fromkeys(tensors, 0.1), "8.2.1")
    check_coverage(read_cache(path), tensors, "cal.bin")
    write_cache(path, dict.fromkeys(tensors[:-2], 0.1), "8.2.1")
    with pytest.raises(DetectNetError, match=r"lacks 2 of \d+ tensors \(first: "):
        check_coverage(read_cache(path), tensors, "cal.bin")
