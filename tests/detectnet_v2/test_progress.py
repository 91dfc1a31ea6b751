"""Progress: a bar on a terminal; in a log now and then a line, without control characters."""

import itertools
import logging
import re

import pytest
from detectnet_v2 import progress, training_log

from .training_runs import train


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


@pytest.mark.parametrize("lines", [False, True])
def test_a_training_on_a_terminal(spec, tmp_path, monkeypatch, terminal, lines):
    monkeypatch.setattr(training_log, "_LINE_SECONDS", 0.0)
    with terminal(lines=lines) as shown:
        assert train(spec(epochs=2), tmp_path / "results") == 0
    shown = shown.decode()
    bar = re.search(r"\repoch 2/2 loss [\d.]+: 100%\|█+\| 8/8 \[[^\r]+, [\d.]+ images/s\]", shown)
    line = re.search(r"epoch 1/2 loss [\d.]+ step 3/8 [\d.]+ images/s ETA \d", shown)
    assert (bar is None, line is None) == (lines, not lines)
    # An epoch's line pushes the bar down.
    assert len(re.findall(r"epoch [12]/2: loss [^\r\n]+, ETA \d:\d\d:\d\d\r\n", shown)) == 2
