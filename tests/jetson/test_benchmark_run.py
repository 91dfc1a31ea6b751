"""Benchmarks that run detached on a real sshd's side, through every kind of trouble."""

import contextlib
import json
import logging
import re
import threading
import time

import push as push_script
import pytest
from jetson import benchmark, table
from jetson.errors import JetsonError

from .benching import Bench


def test_benchmark(bench, board, caplog):
    caplog.set_level(logging.INFO)
    bench.push(chosen_gpu="")
    found = bench.run(warm_up_s=0)
    assert found == json.loads(bench.output.read_text())
    (case,) = found["cases"]
    assert case["fps"]["per_stream"] == [24.1, 12.01]
    assert case["fps"]["total"] == 36.11
    assert case["fps"]["samples"] >= 3
    assert (case["model"], case["engine"], case["precision"]) == ("chosen", "gpu", "fp16")
    assert 2 <= case["measured_s"] <= 4
    assert case["published_fps"] == 21.25
    assert found["map_percent"] == {"chosen": 84.2}
    (pushed,) = json.loads((bench.folder / "receipt.json").read_text())["cases"]
    assert case["model_sha256"] == pushed["model_sha256"]
    stats = case["tegrastats"]
    assert stats["power_mw"] == {"mean": 6543.0, "highest": 6543}
    assert stats["readings"] >= 3
    assert case["engine_build"] == {
        "from_cache": False,
        "build_s": case["engine_build"]["build_s"],
        "files": ["model.onnx_b2_gpu0_fp16.engine"],
        "rebuilt": False,
    }
    assert bench.table.read_text() == table.table([found])
    assert "building the engine" in caplog.text and "measuring" in caplog.text
    assert not list((board.root / "benchmarks").iterdir())
    assert (bench.logs / "chosen-gpu/measure.log").read_text().endswith("App run successful\n")
    assert bench.builds == 1


@pytest.mark.slow
def test_an_engine_is_kept_for_the_next_release_of_the_same_model(bench, board):
    bench.push(chosen_gpu="")
    bench.run(duration_s=1)
    (bench.folder.parent / "rendered/chosen-gpu/labels.txt").write_text("other\n")
    push_script.push(
        "nano",
        board.section(),
        {"chosen-gpu": bench.folder.parent / "rendered/chosen-gpu"},
        "MODEL_KEY",
        bench.folder / "receipt.json",
    )
    again = bench.run(duration_s=1)["cases"][0]
    assert bench.builds == 1
    assert again["engine_build"]["from_cache"] and not again["engine_build"]["rebuilt"]
    assert again["engine_build"]["build_s"] is None


@pytest.mark.slow
def test_every_failure_is_a_line_and_the_good_case_is_measured(bench, caplog):
    caplog.set_level(logging.INFO)
    bench.push(
        a_gpu="build-fails",
        b_gpu="out-of-memory",
        c_gpu="crashes",
        d_gpu="clip-ends",
        chosen_gpu="",
        e_gpu="slow-build",
    )
    lines = bench.failure(duration_s=3, engine_timeout_s=4, stop_timeout_s=1).splitlines()
    assert len(lines) == 6
    assert lines[0].startswith(
        "nano: a-gpu: deepstream-app failed (exit 255) while building the engine: "
        "ERROR: [TRT]: ModelImporter.cpp:735"
    )
    assert "b-gpu: deepstream-app was killed while building the engine, most likely" in lines[1]
    assert "c-gpu: deepstream-app failed (signal 11) while measuring" in lines[2]
    assert "d-gpu: the clip ended before the measurement did; set file-loop=1" in lines[3]
    assert "e-gpu: no frame came within engine_timeout_s while building the engine" in lines[4]
    assert "36.1" in caplog.text
    partial = bench.folder / "benchmark.partial.json"
    assert lines[5] == (
        "nano: not measured: a-gpu, b-gpu, c-gpu, d-gpu, e-gpu; the figures of chosen-gpu are kept "
        f"in {partial}, the next run measures the rest"
    )
    found = json.loads(partial.read_text())
    assert [case["fps"]["total"] for case in found["cases"]] == [36.11]
    assert list(found["not_measured"]) == ["a-gpu", "b-gpu", "c-gpu", "d-gpu", "e-gpu"]
    assert (bench.logs / "a-gpu/build.log").exists()


def test_connection_that_breaks_loses_nothing(bench, board, proxy):
    bench.push(chosen_gpu="")
    before = proxy.connections
    first = bench.when("phase=build", proxy.cut)
    second = bench.when("phase=measure", proxy.cut)
    found = bench.run()
    first.join()
    second.join()
    assert found["cases"][0]["fps"]["total"] == 36.11
    assert proxy.connections >= before + 3
    assert bench.builds == 1


@pytest.mark.slow
def test_desk_that_is_gone_finds_the_result_later(bench, board, proxy):
    bench.push(chosen_gpu="")
    thread = bench.when("phase=build", proxy.close)
    message = bench.failure(reconnect_timeout_s=1)
    thread.join()
    assert "The benchmark goes on there: run it again" in message
    board.write_ssh_config()
    found = bench.run(reconnect_timeout_s=1)
    assert found["cases"][0]["fps"]["total"] == 36.11
    assert bench.builds == 1


@pytest.mark.slow
def test_two_benchmarks_at_once(bench, board, rendered, tmp_path):
    bench.push(chosen_gpu="")
    other = Bench(board, rendered, tmp_path / "other")
    (other.folder / "receipt.json").write_text((bench.folder / "receipt.json").read_text())
    messages = []
    thread = bench.when("phase=measure", lambda: messages.append(other.failure(duration_s=1)))
    assert bench.run(duration_s=10)["cases"]
    thread.join()
    assert "is running there; wait for its end" in messages[0]
    run_id = re.search(r"benchmark (\w+) since", messages[0])[1]
    assert messages[0].endswith(f"with: touch 'face mask/benchmarks/{run_id}/stop'")
    with pytest.raises(JetsonError, match="is running there"):
        busy = bench.when("phase=measure", lambda: None)
        runner = threading.Thread(target=bench.run, kwargs={"duration_s": 10})
        runner.start()
        busy.join()
        try:
            (bench.folder.parent / "rendered/chosen-gpu/labels.txt").write_text("new\n")
            bench.push(chosen_gpu="ok")
        finally:
            runner.join()


def test_reboot_in_the_middle(bench, board):
    bench.push(chosen_gpu="")
    bench.when("phase=measure", board.reboot)
    message = bench.failure(duration_s=30, nvpmodel=0)
    assert "the device was rebooted in the middle of benchmark" in message
    assert "\n" not in message
    assert (board.root / "power.restore").exists()
    assert bench.run(duration_s=1)["cases"]
    assert (board.system / "power-mode").read_text() == "1\n"
    assert not (board.root / "power.restore").exists()


def test_power_settings_are_put_back_after_a_failure_too(bench, board):
    bench.push(chosen_gpu="build-fails")
    bench.failure(nvpmodel=0, jetson_clocks=True)
    assert (board.system / "power-log").read_text().splitlines() == [
        "jetson_clocks --show",
        "nvpmodel 0",
        "jetson_clocks --store",
        "jetson_clocks ",
        "jetson_clocks --restore",
        "nvpmodel 1",
    ][1:]
    assert (board.system / "power-mode").read_text() == "1\n"


@pytest.mark.slow
def test_power_mode_that_is_not_put_back(bench, board, caplog):
    """Some modes are left by a reboot alone, which the program asks for and nobody allows."""
    mode = board.system / "power-mode"
    mode.write_text("1\n")
    board.install(
        "nvpmodel",
        f"#!/bin/sh\nif [ \"$1\" = -q ]; then cat '{mode}'; else "
        f'[ "$2" = 1 ] || echo "$2" >\'{mode}\'; fi\n',
    )
    bench.push(chosen_gpu="")
    bench.run(nvpmodel=0)
    assert f"could not be put back; see {board.root}/power.restore" in caplog.text
    assert (board.root / "power.restore").read_text() == "nvpmodel=1\n"
    for output in (bench.output, bench.table):
        output.unlink()
    message = bench.failure(nvpmodel=0, duration_s=3)
    assert f"set by hand what {board.root}/power.restore says" in message


@pytest.mark.slow
def test_power_mode_that_does_not_change(bench, board):
    board.install("nvpmodel", '#!/bin/sh\n[ "$1" = -q ] && echo 2\nexit 0\n')
    bench.push(chosen_gpu="")
    message = bench.failure(nvpmodel=0)
    assert message.endswith(
        "could not run: nvpmodel stays in mode 2 instead of 0; if that mode "
        "wants a reboot, run sudo nvpmodel -m 0 there first"
    )


@pytest.mark.slow
def test_driver_that_is_killed(bench, board):
    bench.push(chosen_gpu="")

    def kill() -> None:
        for process in board.processes():
            with contextlib.suppress(Exception):
                if "driver.sh" in " ".join(process.cmdline()) or process.name() == "deepstream-app":
                    process.kill()

    bench.when("phase=measure", kill)
    message = bench.failure(duration_s=60)
    assert "was killed there" in message and "memory" in message


@pytest.mark.slow
def test_app_that_does_not_listen_to_sigint_is_measured_all_the_same(bench, caplog):
    bench.push(chosen_gpu="stubborn")
    found = bench.run(duration_s=1, stop_timeout_s=1)
    assert found["cases"][0]["fps"]["total"] == 36.11
    assert found["cases"][0]["app_status"] == 143
    assert "deepstream-app ended with 143" in caplog.text


@pytest.mark.slow
def test_app_that_cannot_be_ended_is_not_followed_for_ever(bench, monkeypatch):
    bench.push(chosen_gpu="stubborn")
    # The device goes on for half a minute, and the desk's patience is over before.
    monkeypatch.setattr(benchmark, "OVERDUE_S", -28)
    message = bench.failure(duration_s=1, stop_timeout_s=30)
    assert "chosen-gpu: measuring" in message and "reboot the device" in message


@pytest.mark.slow
def test_engine_that_is_not_saved_is_told(bench, caplog):
    bench.push(chosen_gpu="no-engine")
    assert bench.run(duration_s=1)["cases"][0]["engine_build"]["files"] == []
    assert "no engine file was written" in caplog.text


def interrupted(bench, monkeypatch, **settings: object) -> None:
    """Press Ctrl-C at the desk while the device measures."""

    def interrupt(name, state, reported):
        if state.get("phase") == "measure":
            raise KeyboardInterrupt
        return reported

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(benchmark, "_report", interrupt)
        bench.run(**settings)


@pytest.mark.slow
def test_interrupt_at_the_desk_stops_the_device(bench, board, monkeypatch):
    bench.push(chosen_gpu="")
    interrupted(bench, monkeypatch, duration_s=60, nvpmodel=0)
    deadline = time.monotonic() + 15
    while board.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not board.processes()
    assert (board.system / "power-mode").read_text() == "1\n"
    assert bench.run(duration_s=1, nvpmodel=0)["cases"]


@pytest.mark.slow
@pytest.mark.parametrize("duration_s", [60, 2])
def test_run_right_after_an_interrupt_waits_and_measures(
    bench, board, monkeypatch, caplog, duration_s
):
    """With the settings of before it is the same run, which must not be taken as it was stopped."""
    caplog.set_level(logging.INFO)
    bench.push(chosen_gpu="stubborn")
    interrupted(bench, monkeypatch, duration_s=duration_s, stop_timeout_s=15)
    (board.root / "current/chosen-gpu/behaviour.txt").write_text("")
    found = bench.run(duration_s=2, stop_timeout_s=15)
    assert 2 <= found["cases"][0]["measured_s"] <= 4
    assert "which was stopped, ends" in caplog.text


@pytest.mark.slow
def test_release_that_is_gone(bench, board):
    bench.push(chosen_gpu="")
    receipt = json.loads((bench.folder / "receipt.json").read_text())
    receipt["release"] = "0123456789abcdef"
    (bench.folder / "receipt.json").write_text(json.dumps(receipt))
    assert "is not there any more, push again" in bench.failure()


@pytest.mark.slow
@pytest.mark.parametrize("dated", [True, False])
def test_an_engine_built_by_hand_is_used(bench, board, dated):
    """Whether dpkg tells when TensorRT came, or the app has to find out that the engine fits."""
    bench.push(chosen_gpu="")
    engine = board.root / "current/chosen-gpu/model.onnx_b2_gpu0_fp16.engine"
    if dated:
        listed = board.system / "var/lib/dpkg/info/libnvinfer8.list"
        listed.parent.mkdir(parents=True)
        listed.touch()
        time.sleep(0.05)
    engine.write_text("built by hand")
    build = bench.run(duration_s=1)["cases"][0]["engine_build"]
    assert bench.builds == 0
    assert build == {"from_cache": True, "build_s": None, "files": [engine.name], "rebuilt": False}
    (kept,) = (board.root / "engines").glob(f"*/{engine.name}")
    assert kept.read_text() == "built by hand"


@pytest.mark.slow
def test_the_precision_that_ran_is_told(bench, caplog):
    bench.push(chosen_gpu="other-precision")
    case = bench.run(duration_s=2)["cases"][0]
    assert (case["precision"], case["asked_precision"]) == ("fp32", "fp16")
    assert "built the engine in FP32 instead of FP16; the figure is of that" in caplog.text
    assert ", FP32, 2 stream(s)" in bench.table.read_text()


def test_the_next_run_measures_what_failed_and_nothing_else(bench, board):
    bench.push(chosen_gpu="", unpruned_gpu="crashes")
    assert "unpruned-gpu: deepstream-app failed (signal 11)" in bench.failure(duration_s=3)
    partial = bench.folder / "benchmark.partial.json"
    (kept,) = json.loads(partial.read_text())["cases"]
    behaviour = board.root / "current/unpruned-gpu/behaviour.txt"
    behaviour.write_text("")
    log = bench.logs / "chosen-gpu/measure.log"
    before = log.stat().st_mtime_ns
    found = bench.run(duration_s=3)
    assert [case["case"] for case in found["cases"]] == ["chosen-gpu", "unpruned-gpu"]
    assert found["cases"][0] == kept
    assert log.stat().st_mtime_ns == before
    assert not partial.exists()


@pytest.mark.slow
def test_figures_under_other_settings_are_measured_again(bench, board):
    bench.push(chosen_gpu="", unpruned_gpu="crashes")
    bench.failure(duration_s=3)
    (board.root / "current/unpruned-gpu/behaviour.txt").write_text("")
    found = bench.run(duration_s=1)
    assert [case["measured_s"] < 3 for case in found["cases"]] == [True, True]


@pytest.mark.slow
def test_a_reboot_keeps_what_was_measured_before_it(bench, board):
    bench.push(chosen_gpu="", unpruned_gpu="")
    bench.when("case=unpruned-gpu", board.reboot)
    first, second = bench.failure(duration_s=2).splitlines()
    assert "the device was rebooted in the middle of benchmark" in first
    assert "not measured: unpruned-gpu; the figures of chosen-gpu are kept in" in second
    assert not list((board.root / "benchmarks").iterdir())
    assert len(bench.run(duration_s=2)["cases"]) == 2


@pytest.mark.slow
def test_what_makes_a_figure_doubtful_is_told(bench, board, caplog):
    lines = "".join(f"echo 'RAM 1/2MB GR3D_FREQ 99%@{clock} GPU@33C'; " for clock in (921, 614))
    board.install("tegrastats", f"#!/bin/sh\nwhile :; do {lines} sleep 0.2; done\n")
    kinds = ("gpu-balanced", "pwm-fan", "hot-surface-alert")
    kinds += ("gpu_scaling", "core_cold_dfll", "DFLL-floor")
    for number, kind in enumerate(kinds):
        device = board.system / f"sys/class/thermal/cooling_device{number}"
        device.mkdir(parents=True)
        (device / "type").write_text(f"{kind}\n")
        (device / "cur_state").write_text("2\n")
    bench.push(chosen_gpu="")
    found = bench.run(duration_s=1)["cases"][0]
    assert found["throttled_by"] == ["cooling:cooling_device0:gpu-balanced"]
    assert "the board was throttled by cooling:cooling_device0:gpu-balanced" in caplog.text
    assert (
        "the GPU's clock went from 614 to 921 MHz; fix it with jetson_clocks: true" in caplog.text
    )
    board.install("tegrastats", "#!/bin/sh\nexit 1\n")
    bench.run(duration_s=2)
    assert "tegrastats printed nothing" in caplog.text
