"""The drawn video: frames, size, determinism, refusals."""

import av
import numpy as np
import pytest
from scenes import ScenesError, write_clip


def frames(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return stream.codec_context.name, float(stream.average_rate), pictures


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_clip_has_the_frames_asked_for_and_moves(tmp_path, codec):
    path = tmp_path / "clip.mp4"
    count = write_clip(path, seconds=0.4, size=(192, 108), rate=15, people=3, codec=codec)
    name, rate, pictures = frames(path)
    assert count == len(pictures) == 6
    assert name == {"libx264": "h264", "mpeg4": "mpeg4"}[codec] and rate == 15
    assert pictures[0].shape == (108, 192, 3)
    moved = np.abs(pictures[-1].astype(int) - pictures[0].astype(int)).max(axis=2) > 40
    assert 0.001 < moved.mean() < 0.5  # people move, the background stays
    assert [item.name for item in tmp_path.iterdir()] == ["clip.mp4"]


def test_same_seed_gives_same_bytes_from_any_number_of_processes(tmp_path):
    for name, seed, processes in (("a", 1, 1), ("b", 1, 2), ("c", 2, 1)):
        write_clip(
            tmp_path / name,
            seconds=0.5,
            size=(160, 90),
            rate=10,
            people=2,
            seed=seed,
            processes=processes,
        )
    contents = [(tmp_path / name).read_bytes() for name in "abc"]
    assert contents[0] == contents[1] != contents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0}, "have no frame"),
        ({"size": (321, 180)}, "clip of 321x180 pixels"),
        ({"codec": "wmv9"}, "no encoder wmv9"),
    ],
)
def test_wrong_requests_say_what_to_do(tmp_path, arguments, message):
    with pytest.raises(ScenesError, match=message):
        write_clip(tmp_path / "clip.mp4", **arguments)
    assert not list(tmp_path.iterdir())
