"""Progress in a log: now and then a line, without control characters."""

import itertools
import logging

from detectnet_v2 import progress


def test_lines_in_a_log(caplog, monkeypatch, capsys):
    clock = itertools.count(0, 4)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    caplog.set_level(logging.INFO)
    shown = progress.progress(iter("abcdefg"), 7, "images", logging.getLogger("test"))
    assert "".join(shown) == "abcdefg"
    assert caplog.messages == [
        "3 of 7 images, 0.2 a second, 16 s left",
        "6 of 7 images, 0.2 a second, 4 s left",
    ]
    assert capsys.readouterr() == ("", "")


def test_a_source_of_unknown_length(caplog, monkeypatch):
    clock = itertools.count(0, 10)
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    caplog.set_level(logging.INFO)
    assert list(progress.progress([1, 2], 0, "frames", logging.getLogger("test"))) == [1, 2]
    assert caplog.messages == ["1 frames, 0.1 a second", "2 frames, 0.1 a second"]
