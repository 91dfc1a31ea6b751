"""PERF lines of deepstream-app in both formats, whole and damaged."""

import pytest
from deepstream.perf import PerfMeter
from jetson import perf

SINGLE = (
    "\n**PERF:  FPS 0 (Avg)\tFPS 1 (Avg)\t\n"
    "**PERF:  0.00 (0.00)\t0.00 (0.00)\t\n"
    "** INFO: <bus_callback:194>: Pipeline ready\n\n"
    "**PERF:  20.00 (10.00)\t11.50 (5.00)\t\n"
    "**PERF:  24.00 (12.00)\t12.50 (6.00)\t\n"
    "**PERF:  22.00 (13.00)\t90.00 (7.00)\t\n"
)
SEVERAL = (
    "PERF(0): FPS 0 (Avg)\t\nPERF(1): FPS 0 (Avg)\tFPS 1 (Avg)\t\n"
    "PERF(0): 30.00 (29.00)\t\nPERF(1): 10.00 (9.00)\t20.00 (19.00)\t\n"
    "PERF(0): 32.00 (29.00)\t\nPERF(1): 12.00 (9.00)\t22.00 (19.00)\t\n"
)


def test_single():
    samples = perf.parse(SINGLE)
    assert [sample.now for sample in samples] == [(0, 0), (20, 11.5), (24, 12.5), (22, 90)]
    assert samples[1].average == (10, 5)
    found = perf.throughput(samples)
    assert found.per_stream == (22.0, 12.5)
    assert (found.total, found.lowest, found.highest, found.samples) == (36.5, 31.5, 112.0, 3)


def test_several_configs():
    samples = perf.parse(SEVERAL)
    assert [(s.instance, s.now) for s in samples] == [
        (0, (30,)),
        (1, (10, 20)),
        (0, (32,)),
        (1, (12, 22)),
    ]
    found = perf.throughput(samples)
    assert found.per_stream == (31.0, 11.0, 21.0)
    assert found.total == 31 + 32
    assert found.samples == 2


def test_noise_around_figures():
    text = "\x1b[32m**PERF:  25.00 (24.98)\t\x1b[0m\nrandom\n2026-01-01 **PERF:  26.00 (1)\n"
    assert [sample.now for sample in perf.parse(text)] == [(25.0,), (26.0,)]


def test_a_line_that_is_cut_short_does_not_count():
    assert [sample.now for sample in perf.parse("**PERF:  25.00 (1.00)\n**PERF:  2")] == [(25.0,)]
    assert len(perf.parse("**PERF:  25.00 (1.00)\t24.0")) == 0


def test_figures_before_the_first_frame():
    samples = perf.parse("**PERF:  nan (-nan)\t\n**PERF:  inf (0.00)\t\n**PERF:  5.00 (nan)\t\n")
    assert [sample.now for sample in samples] == [(0.0,), (0.0,), (5.0,)]
    assert perf.throughput(samples).samples == 1


def test_a_stream_that_stands_still_counts_as_zero():
    assert perf.throughput(perf.parse("**PERF:  8.00 (8)\t0.00 (0)\n" * 3)).per_stream == (8.0, 0.0)


@pytest.mark.parametrize("text", ["", "App run failed\n", "**PERF:  0.00 (0.00)\t\n"])
def test_nothing_measured(text):
    assert perf.throughput(perf.parse(text)) is None


@pytest.mark.parametrize(
    ("start", "end", "text"),
    [(0, 4, "one\n"), (4, 8, "two\n"), (5, 12, "tri\n"), (5, 8, ""), (1, 3, "")],
)
def test_window(start, end, text):
    assert perf.window(b"one\ntwo\ntri\n", start, end) == text


@pytest.mark.parametrize("instance", [None, 1])
def test_the_desk_program_prints_what_is_read_here(instance):
    meter = PerfMeter(2, instance=instance)
    text = ""
    for _ in range(2):
        meter.count(0)
        meter.count(1)
        text += meter.sample() + "\n"
    samples = perf.parse(text)
    assert [(s.instance, len(s.now)) for s in samples] == [(instance or 0, 2)] * 2
    assert all(figure > 0 for sample in samples for figure in sample.now)
