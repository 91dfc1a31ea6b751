"""A program's output, on a terminal and in a log file."""

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import time

import pytest
from detectnet_v2.tee import LineLog

BARS = "import sys, tqdm; [None for _ in tqdm.tqdm(range(300), mininterval=0)]; print('done')"
TALKER = "import sys; print(sys.stderr.isatty(), flush=True); print('err', file=sys.stderr)"

SLOW = """
import time
for _ in range(3):
    print("x", flush=True)
    time.sleep(0.1)
print("x", flush=True)
raise SystemExit(3)
"""


def logged(data: list[bytes], seconds: float) -> bytes:
    file = io.BytesIO()
    log = LineLog(file, seconds)
    for chunk in data:
        log.write(chunk)
    log.close()
    return file.getvalue()


def command(log, *program, flags=()) -> list[str]:
    return [sys.executable, "-m", "detectnet_v2.tee", *flags, str(log), *program]


@pytest.fixture
def environment(repository):
    return os.environ | {"PYTHONPATH": str(repository / "scripts")}


def on_terminal(arguments, environment) -> tuple[bytes, int]:
    """What a terminal shows of a program, and its exit status."""
    reading, writing = pty.openpty()
    program = subprocess.Popen(arguments, stdout=writing, stderr=writing, env=environment)
    os.close(writing)
    shown = b""
    while True:
        try:
            data = os.read(reading, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(reading)
    return shown, program.wait()


def test_a_bar_is_its_last_state_in_the_log():
    data = b"one\n\r 10%|#| 1/9\r 50%|##| 5/9\r100%|###| 9/9\ntwo\n"
    assert logged([data], 60) == b"one\n100%|###| 9/9\ntwo\n"


def test_a_bar_is_also_its_state_now_and_then():
    assert logged([b"\r 10%\r 50%\r100%\n"], 0) == b" 10%\n 50%\n100%\n"


def test_a_line_that_pushes_the_bar_down_is_whole():
    assert logged([b"\r 10%|#|\r         \repoch 1\n\r 20%|##|"], 60) == b"epoch 1\n 20%|##|\n"


def test_lines_cut_anywhere_stay_the_same():
    data = "eins ✓\r\nzwei\n\n\x1b[31mdrei\x1b[0m\nvier".encode()
    expected = "eins ✓\nzwei\n\ndrei\nvier\n".encode()
    for size in range(1, 9):
        chunks = [data[start : start + size] for start in range(0, len(data), size)]
        assert logged(chunks, 60) == expected


def test_a_program_on_a_terminal_draws_bars_there_and_few_in_the_log(tmp_path, environment):
    log = tmp_path / "logs/run.log"
    shown, status = on_terminal(command(log, sys.executable, "-c", BARS), environment)
    assert status == 0
    assert shown.count(b"\r") > 20 and b"300/300" in shown
    *_, bar, last = log.read_text().splitlines()
    assert last == "done"
    assert "300/300" in bar and "\r" not in log.read_text()


def test_a_program_elsewhere_sees_no_terminal(tmp_path, environment):
    log = tmp_path / "run.log"
    done = subprocess.run(
        command(log, sys.executable, "-c", TALKER),
        env=environment,
        capture_output=True,
        check=True,
    )
    assert log.read_bytes() == done.stderr == b"False\nerr\n"


def test_tqdm_disable_asks_for_lines_on_a_terminal_too(tmp_path, environment):
    log = tmp_path / "run.log"
    arguments = command(log, sys.executable, "-c", TALKER)
    shown, _ = on_terminal(arguments, environment | {"TQDM_DISABLE": "1"})
    assert b"False" in shown
    assert on_terminal(arguments, environment)[0].startswith(b"True")


def test_append_keeps_what_is_there(tmp_path, environment):
    log = tmp_path / "run.log"
    log.write_text("before\n")
    subprocess.run(
        command(log, "echo", "after", flags=["--append"]),
        env=environment,
        capture_output=True,
        check=True,
    )
    assert log.read_text() == "before\nafter\n"


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        (("sh", "-c", "exit 7"), 7, ""),
        (("sh", "-c", "kill -9 $$"), 137, ""),
        (("nosuchprogram",), 127, "nosuchprogram: no such program on the PATH\n"),
    ],
)
def test_exit_status_is_the_programs(tmp_path, environment, program, status, said):
    done = subprocess.run(
        command(tmp_path / "run.log", *program),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, said)


def test_a_request_to_stop_reaches_the_program_and_its_last_words_the_log(tmp_path, environment):
    log = tmp_path / "run.log"
    script = "trap 'echo saved; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    program = subprocess.Popen(
        command(log, "sh", "-c", script), env=environment, stderr=subprocess.DEVNULL
    )
    while not log.exists() or b"ready" not in log.read_bytes():
        time.sleep(0.02)
    program.send_signal(signal.SIGTERM)
    assert program.wait(timeout=20) == 3
    assert log.read_text() == "ready\nsaved\n"


def test_ctrl_c_is_left_to_the_program(tmp_path, environment):
    log = tmp_path / "run.log"
    script = "trap 'echo saved; exit 4' INT; echo ready; while :; do sleep 0.05; done"
    program = subprocess.Popen(
        command(log, "sh", "-c", script),
        env=environment,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # What a shell starts in the background ignores it, and a shell below cannot trap it then.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads
    )
    try:
        while not log.exists() or b"ready" not in log.read_bytes():
            time.sleep(0.02)
        os.killpg(program.pid, signal.SIGINT)
        assert program.wait(timeout=20) == 4
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
    assert log.read_text() == "ready\nsaved\n"


@pytest.mark.parametrize("flags", [(), ("--append",)])
def test_another_file_gets_what_this_program_printed(environment, tmp_path, flags):
    (tmp_path / "log").write_text("before\n")
    flags = (*flags, "--also", str(tmp_path / "results/printed.txt"))
    arguments = command(tmp_path / "log", "sh", "-c", "echo told; exit 3", flags=flags)
    done = subprocess.run(arguments, env=environment, capture_output=True, check=False)
    assert done.returncode == 3
    assert (tmp_path / "results/printed.txt").read_text() == "told\n"
    assert ("before" in (tmp_path / "log").read_text()) == ("--append" in flags)


@pytest.mark.parametrize("program", [SLOW, "print(7 * 'x'); raise SystemExit(3)"])
def test_a_program_outlives_a_full_disk(environment, tmp_path, program):
    flags = ("--also", str(tmp_path / "printed.txt"))
    done = subprocess.run(
        command("/dev/full", sys.executable, "-c", program, flags=flags),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    told = [line for line in done.stderr.splitlines() if not line.startswith("x")]
    assert "tee: cannot write /dev/full: No space left on device; free space" in told[0]
    assert told[1:] == [f"tee: {flags[1]} is not written, since /dev/full is not whole"]
    assert len(done.stderr.splitlines()) == len(told) + (4 if program == SLOW else 1)
    assert not (tmp_path / "printed.txt").exists()


@pytest.mark.parametrize("place", ["log", "also"])
def test_a_file_that_cannot_be_opened_is_a_line(environment, tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    paths = {"log": tmp_path / "log", "also": tmp_path / "printed.txt"}
    paths[place] = tmp_path / "file/x"
    flags = ("--also", str(paths["also"])) if place == "also" else ()
    done = subprocess.run(
        command(paths["log"], "sh", "-c", "echo told; exit 3", flags=flags),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    said = [line for line in done.stderr.splitlines() if line != "told"]
    assert len(said) == 1 and said[0].startswith(f"tee: cannot write {paths[place]}: ")
    assert "told" in done.stderr.splitlines()


def test_the_shell_script_for_containers_keeps_the_status_too(tmp_path, repository):
    script = ["bash", str(repository / "scripts/tee.sh"), str(tmp_path / "none/run.log")]
    for status in (0, 3):
        done = subprocess.run(
            [*script, "sh", "-c", f"echo told; exit {status}"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (status, "told\n")


def test_the_shell_script_for_containers_does_the_same(tmp_path, repository):
    log, also = tmp_path / "run.log", tmp_path / "printed.txt"
    script = ["bash", str(repository / "scripts/tee.sh")]
    for flags, said in (([], "one"), (["--append", "--also", str(also)], "two")):
        program = ["sh", "-c", f"echo {said} >&2; exit 5"]
        done = subprocess.run(
            [*script, *flags, str(log), *program], capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (5, f"{said}\n")
    assert log.read_text() == "one\ntwo\n"
    assert also.read_text() == "two\n"
