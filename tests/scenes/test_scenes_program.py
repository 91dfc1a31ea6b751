"""`python -m scenes`: what it writes, prints and refuses."""

import pytest
from scenes.__main__ import main


def test_draws_data_sets_and_a_clip(tmp_path, capsys):
    raw, clip = tmp_path / "raw", tmp_path / "clip.mp4"
    drawing = [str(raw), "--images", "fddb=2", "--size", "160x120", "--processes", "1"]
    filming = ["--clip", str(clip), "--clip-size", "160x90", "--seconds", "0.1", "--people", "1"]
    status = main([*drawing, *filming])
    out = capsys.readouterr().out
    assert status == 0 and clip.stat().st_size > 500
    assert len(list(raw.rglob("*.jpg"))) == 2
    assert "fddb" in out and "3 frames" in out


def test_a_total_is_split_over_the_data_sets(tmp_path, capsys):
    raw = tmp_path / "raw"
    assert main([str(raw), "--images", "12", "--size", "160x120", "--processes", "1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(rows) == 6 and 10 <= sum(int(row[1]) for row in rows) <= 14


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "name a folder"),
        (["OUT", "--images", "many"], 1, "--images many: write a total"),
        (["OUT", "--images", "voc=3"], 1, "no data set 'voc'"),
    ],
)
def test_wrong_requests_are_one_line(tmp_path, capsys, arguments, status, message):
    words = [str(tmp_path / "raw") if word == "OUT" else word for word in arguments]
    assert main(words) == status
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
