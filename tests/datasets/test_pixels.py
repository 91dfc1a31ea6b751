"""The fast picture path against Pillow, and every kind of damaged body."""

import io

import numpy as np
import pytest
import simplejpeg
from datasets.pixels import CorruptImageError, decode, encode, resize, shrinking_filter
from PIL import Image


def jpeg(size, mode="RGB", seed=0, **options):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 92, **options})
    return buffer.getvalue()


def psnr(first, second):
    error = np.mean((np.asarray(first, float) - np.asarray(second, float)) ** 2)
    return 10 * np.log10(255**2 / max(error, 1e-9))


def pillow(data, size):
    return Image.open(io.BytesIO(data)).convert("RGB").resize(size)


@pytest.mark.parametrize(
    "size", [(160, 120), (320, 160), (480, 272), (500, 300), (700, 400), (400, 700), (1100, 640)]
)
def test_resize_is_pillows(size):
    data = jpeg(size)
    pixels, full = decode(data, 480, 272)
    assert full == size
    result = resize(pixels, 480, 272)
    assert result.shape == (272, 480, 3)
    assert psnr(result, pillow(data, (480, 272))) > 38


def test_a_big_jpeg_is_decoded_small():
    pixels, full = decode(jpeg((1920, 1088)), 480, 272)
    assert full == (1920, 1088)
    assert pixels.shape == (544, 960, 3)
    # One side alone is no reason.
    pixels, _ = decode(jpeg((1920, 600)), 480, 272)
    assert pixels.shape == (600, 1920, 3)


@pytest.mark.parametrize("ratio", [1.05, 1.5, 2, 3.3])
def test_shrinking_filter_is_a_symmetric_average(ratio):
    taps = shrinking_filter(round(1000 * ratio), 1000)
    assert taps.sum() == pytest.approx(1)
    assert taps == pytest.approx(taps[::-1])


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_jpeg_modes(mode):
    data = jpeg((300, 200), mode)
    pixels, _ = decode(data, 300, 200)
    assert psnr(pixels, pillow(data, (300, 200))) > 38


@pytest.mark.parametrize(
    ("mode", "format_"), [("P", "PNG"), ("RGBA", "PNG"), ("1", "BMP"), ("L", "WEBP")]
)
def test_other_formats_are_pillows(mode, format_):
    image = Image.effect_noise((90, 60), 80).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, format_)
    pixels, full = decode(buffer.getvalue(), 90, 60)
    assert full == (90, 60)
    assert np.array_equal(pixels, pillow(buffer.getvalue(), (90, 60)))


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_grey_of_16_bits_keeps_its_levels(format_):
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(levels * 256 + 255 - levels).save(buffer, format_)
    pixels, _ = decode(buffer.getvalue(), 16, 16)
    assert np.array_equal(pixels, np.stack([levels] * 3, axis=2))


def test_orientation_is_not_applied():
    """Annotations are for the pixels as stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels, full = decode(jpeg((320, 160), exif=exif), 320, 160)
    assert full == (320, 160)
    assert pixels.shape == (160, 320, 3)


def damaged():
    whole = jpeg((320, 240))
    body = whole.index(b"\xff\xda") + 12
    middle = (body + len(whole)) // 2
    noise = np.random.default_rng(0).integers(0, 255, 400, dtype=np.uint8).tobytes()
    buffer = io.BytesIO()
    Image.effect_noise((90, 60), 80).save(buffer, "PNG")
    png = buffer.getvalue()
    return {
        "half": whole[: len(whole) // 2],
        "no end": whole[:-2],
        "noise": whole[:middle] + noise + whole[middle + 400 :],
        "zeros": whole[:middle] + bytes(900) + whole[middle + 900 :],
        "header only": whole[:body],
        "empty": b"",
        "text": b"no picture",
        "png half": png[: len(png) // 2],
        "png noise": png[:900] + noise + png[1300:],
    }


@pytest.mark.parametrize("kind", damaged())
def test_a_damaged_body_is_an_error_with_a_reason(kind):
    with pytest.raises(CorruptImageError, match=r"^image is (damaged: .|of no known format)"):
        decode(damaged()[kind], 64, 48)


@pytest.mark.parametrize("filling", [bytes(16), bytes(500), b"\xff\0" * 16], ids=len)
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_filling_after_the_picture_data_is_no_damage(filling, options):
    whole = jpeg((1200, 800), **options)
    filled = whole[:-2] + filling + whole[-2:]
    with pytest.raises(ValueError, match="extraneous bytes before marker 0xd9"):
        simplejpeg.decode_jpeg(filled)
    assert np.array_equal(decode(filled, 480, 272)[0], decode(whole, 480, 272)[0])


def test_picture_data_left_over_at_the_end_is_damage():
    whole = jpeg((320, 240))
    with pytest.raises(CorruptImageError, match=r"\d extraneous bytes before marker 0xd9"):
        decode(whole[:-2] + whole[-22:], 320, 240)


def test_encode_has_half_colour_resolution():
    data = encode(np.zeros((48, 64, 3), np.uint8), 90)
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (64, 48)
        assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]
