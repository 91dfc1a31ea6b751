"""What a push and a benchmark show: a bar and a clock on a terminal, lines elsewhere."""

import re

import pytest
from jetson import push
from jetson.job import reported

from .pushing import release_of

SENT = 3 * push.CHUNK


@pytest.mark.parametrize("lines", [False, True])
def test_a_push_draws_a_bar_and_writes_lines(
    board, rendered, tmp_path, monkeypatch, terminal, lines
):
    monkeypatch.setattr(push, "REPORT_EVERY_S", 0)
    folder = rendered("chosen-gpu", model=bytes(SENT))
    log = tmp_path / "push.log"
    with terminal(lines=lines) as shown, reported([str(log)]), board.session() as session:
        push.push(session, release_of(folder))
    shown = shown.decode()
    told = log.read_text().splitlines()
    name = session.remote.name
    assert f"{name}: sending 0.8 MB" in told
    assert f"{name}: 0.5 of 0.8 MB" in told
    assert any(re.fullmatch(rf"{name}: sent 0\.8 MB in [\d.]+ s", line) for line in told)
    # Each line is whole on the terminal too.
    assert set(told) <= set(re.split(r"[\r\n]+", shown))
    assert (re.search(rf"\r{name}: 100%\|█+\| 78\dk/78\dk \[", shown) is None) == lines


@pytest.mark.parametrize("lines", [False, True])
def test_a_build_shows_a_clock_and_writes_one_line(bench, tmp_path, terminal, lines):
    bench.push(chosen_gpu="slow-build")
    log = tmp_path / "benchmark.log"
    with terminal(lines=lines) as shown, reported([str(log)]):
        bench.failure(engine_timeout_s=4)
    shown = shown.decode()
    building = r"nano: chosen-gpu: building the engine, (\d+) s"
    clock = [int(seconds) for seconds in re.findall(rf"\r{building}", shown)]
    assert clock == sorted(clock)
    assert len(set(clock)) > 1 if not lines else not clock
    told = [line for line in log.read_text().splitlines() if re.fullmatch(building, line)]
    assert len(told) == 1
    assert told[0] in re.split(r"[\r\n]+", shown)
