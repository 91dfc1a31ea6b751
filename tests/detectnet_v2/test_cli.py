"""The command line: tasks, flags, exit status, what is printed."""

import errno
import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from detectnet_v2 import cli, status
from detectnet_v2.errors import DetectNetError


@pytest.fixture
def task(monkeypatch):
    """A function that puts another function in the place of dataset_convert's work."""
    from detectnet_v2 import dataset_convert

    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    return lambda run: monkeypatch.setattr(dataset_convert, "run", run)


CONVERT = ["dataset_convert", "-d", "spec", "-o", "out"]


def test_help_names_the_tasks_and_loads_nothing_heavy(repository):
    script = (
        "import sys; from detectnet_v2 import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as error: assert error.code == 0\n"
        "print([m for m in ('torch', 'numpy', 'google.protobuf', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=repository / "scripts",
        capture_output=True,
        text=True,
        check=True,
    )
    for name in cli.TASKS:
        assert name in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", sorted(cli.TASKS))
def test_every_task_has_help(name, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main([name, "--help"])
    assert error.value.code == 0
    assert f"detectnet_v2 {name}" in capsys.readouterr().out


@pytest.mark.parametrize("argv", [[], ["fly"], ["dataset_convert"], [*CONVERT, "--unknown"]])
def test_a_wrong_command_line_ends_with_2(argv, capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(argv)
    assert error.value.code == 2
    assert "usage: detectnet_v2" in capsys.readouterr().err


def test_success_and_the_module_as_a_program(task, capsys):
    task(lambda args: 0)
    assert cli.main(CONVERT) == 0
    assert capsys.readouterr().out == "Execution status: PASS\n"


def test_each_problem_is_a_line(task, capsys):
    def fail(args):
        raise DetectNetError("a: 1 is wrong\nb: 2 is wrong")

    task(fail)
    assert cli.main(CONVERT) == cli.FAILED
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "detectnet_v2 dataset_convert: a: 1 is wrong",
        "detectnet_v2 dataset_convert: b: 2 is wrong",
    ]
    assert captured.out == "Execution status: FAIL\n"


@pytest.mark.parametrize(
    ("argv", "code"),
    [
        (["prune", "-m", "absent.hdf5", "-o", "out.hdf5"], 255),
        (["prune", "-m", "absent.hdf5"], 2),
        (["prune", "-m", "absent.hdf5", "-o", "out.hdf5", "--gpus", "2"], 1),
    ],
)
def test_the_programs_exit_status(argv, code, repository):
    done = subprocess.run(
        [sys.executable, "-m", "detectnet_v2", *argv],
        cwd=repository / "scripts",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert ("Execution status: FAIL" in done.stdout) == (code != 2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["dataset_convert", "-d", "absent.txt", "-o", "out"], "absent.txt: spec cannot be read"),
        (["train", "-e", "absent.txt"], "absent.txt: spec cannot be read"),
        (["train", "-e", "absent.txt", "--gpus", "2"], "absent.txt: spec cannot be read"),
        (["evaluate", "-e", "absent.txt", "-m", "a.onnx"], "absent.txt: spec cannot be read"),
        (["inference", "-e", "absent.txt", "-i", "."], "absent.txt: spec cannot be read"),
        (["export", "-m", "absent.hdf5", "--engine_file", "x"], "--engine_file x"),
        (["prune", "-m", "absent.hdf5", "-o", "out", "-pth", "-1"], "-pth -1: "),
    ],
)
def test_a_failure_before_the_work_is_in_status_json(argv, message, tmp_path, capsys):
    results = tmp_path / "results"
    flag = "--results_dir" if argv[0] in ("export", "prune") else "-r"
    assert cli.main([*argv, flag, str(results)]) == cli.FAILED
    lines = [json.loads(line) for line in (results / "status.json").open()]
    assert [line["status"] for line in lines] == ["STARTED", "FAILURE"]
    assert message in lines[1]["message"]
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    results = tmp_path / "file" / "results"
    assert cli.main([*CONVERT, "-r", str(results)]) == cli.FAILED
    assert f"cannot write {results}/status.json: Not a directory" in capsys.readouterr().err


def test_an_interrupt_is_no_success(task, capsys):
    def interrupt(args):
        raise KeyboardInterrupt

    task(interrupt)
    assert cli.main(CONVERT) == cli.INTERRUPTED
    assert capsys.readouterr().out == "Execution status: FAIL\n"


def test_a_full_gpu_is_explained(task, capsys):
    class OutOfMemoryError(RuntimeError):
        pass

    def fill(args):
        raise OutOfMemoryError("tried to allocate")

    task(fill)
    assert cli.main(CONVERT) == cli.FAILED
    assert "ran out of GPU memory: lower the batch size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            "CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation'",
            "lower the batch size",
        ),
        ("NCCL error in: x.cpp\nCuda failure 'out of memory'", "lower the batch size"),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "lower the batch size"),
        (
            "CUDA error: no kernel image is available for execution on the device",
            "no code for this",
        ),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", "--gpu_index"),
        ("CUDA error: device-side assert triggered", ""),
    ],
)
def test_a_gpus_limits_are_explained_and_mistakes_are_not_taken_for_one(said, remedy):
    for kind in (RuntimeError, torch.AcceleratorError):
        found = cli.what_to_do(kind(said))
        assert remedy in found
        assert bool(found) == bool(remedy)


def test_a_full_disk_is_explained(task, capsys):
    def fill(args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/results/events")

    task(fill)
    assert cli.main(CONVERT) == cli.FAILED
    captured = capsys.readouterr().err
    assert "/results/events: No space left on device; free space or put results_dir" in captured
    assert "Traceback" not in captured


def test_errors_of_the_program_keep_their_traceback(task, capsys):
    def err(args):
        raise RuntimeError("a mistake of ours")

    task(err)
    logging.getLogger().addHandler(logging.StreamHandler())
    assert cli.main(CONVERT) == cli.FAILED
    captured = capsys.readouterr()
    assert captured.out == "Execution status: FAIL\n"
    assert captured.err.startswith("an error of the program\nTraceback")
    assert captured.err.endswith("RuntimeError: a mistake of ours\n")


@pytest.mark.parametrize("after", [True, False])
def test_the_wrappers_flags_before_and_after_the_task(task, after, monkeypatch):
    seen = []
    task(lambda args: seen.append(args) or 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    flags = ["--gpus", "1", "--gpu_index", "2", "--num_processes", "-1", "--launch_cuda_blocking"]
    argv = [*CONVERT, *flags] if after else [*flags, *CONVERT]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "")
    assert cli.main(argv) == 0
    assert seen[0].gpus == 1
    assert cli.os.environ["CUDA_VISIBLE_DEVICES"] == "2"
    assert cli.os.environ["CUDA_LAUNCH_BLOCKING"] == "1"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpus", "2"], "--gpus 2: only train runs on several GPUs"),
        (["--gpus", "0"], "--gpus 0: at least 1"),
        (["--use_amp"], "--use_amp: only train has mixed precision"),
    ],
)
def test_flags_of_train_only(task, capsys, flags, message, tmp_path):
    task(lambda args: 0)
    assert cli.main([*CONVERT, *flags, "-r", str(tmp_path)]) == cli.MISUSED
    assert message in capsys.readouterr().err
    last = json.loads((tmp_path / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert message in last["message"]


def test_a_wrong_flag_leaves_what_an_earlier_training_said(tmp_path):
    (tmp_path / "status.json").write_text('{"status": "SUCCESS"}\n')
    arguments = ["train", "-e", "spec", "-r", str(tmp_path), "-n", "model", "--gpus", "0"]
    assert cli.main(arguments) == cli.MISUSED
    lines = [json.loads(line) for line in (tmp_path / "status.json").open()]
    assert [line["status"] for line in lines] == ["SUCCESS", "STARTED", "FAILURE"]


def test_a_log_file_takes_what_is_printed(task, capsys, tmp_path):
    task(lambda args: print("from the task") or 0)
    path = tmp_path / "logs/log.txt"
    assert cli.main([*CONVERT, "--log_file", str(path)]) == 0
    assert cli.main([*CONVERT, "--log_file", str(path)]) == 0
    assert path.read_text() == "from the task\n" * 2
    assert capsys.readouterr().out == "Execution status: PASS\n" * 2


def test_a_log_file_may_be_named_like_a_task(task, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    task(lambda args: print("from the task") or 0)
    assert cli.main(["--log_file", "export", *CONVERT]) == 0
    assert (tmp_path / "export").read_text() == "from the task\n"


@pytest.mark.parametrize("name", ["folder", "file/log.txt"])
def test_a_log_file_that_cannot_be_opened_is_one_line(task, capsys, tmp_path, name):
    task(lambda args: 0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    assert cli.main([*CONVERT, "--log_file", str(tmp_path / name)]) == cli.FAILED
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(f"detectnet_v2 dataset_convert: --log_file {tmp_path / name}: cannot be")
    assert captured.out == "Execution status: FAIL\n"


def test_a_log_takes_names_that_are_no_utf8(capsys, tmp_path):
    model = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.hdf5")
    log = tmp_path / "log.txt"
    argv = ["prune", "-m", model, "-o", str(tmp_path / "o.hdf5"), "--log_file", str(log)]
    assert cli.main(argv) == cli.FAILED
    assert "caf\\udce9.hdf5: train first" in log.read_text(encoding="utf-8")
    assert capsys.readouterr().out == "Execution status: FAIL\n"


def test_flags_before_the_task_are_not_cut_short(task, capsys):
    task(lambda args: 0)
    with pytest.raises(SystemExit) as error:
        cli.main(["--log", "export", *CONVERT])
    assert error.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
    assert cli.main(["dataset_convert", "--dataset_export_spec", "s", "--output", "out"]) == 0


def test_status_json(tmp_path):
    with status.task_status(tmp_path, "Work") as log:
        log.kpi = {"mAP": 1.5}
        log.graphical = {"loss": 0.5}
        log.write("half", epoch=1, max_epoch=2, eta="0:00:10")
    lines = [json.loads(line) for line in (tmp_path / "status.json").open()]
    assert [line["status"] for line in lines] == ["STARTED", "RUNNING", "SUCCESS"]
    assert lines[1]["message"] == "half"
    assert lines[1]["verbosity"] == "INFO"
    assert (lines[1]["epoch"], lines[1]["eta"]) == (1, "0:00:10")
    assert lines[2]["kpi"] == {"mAP": 1.5}
    month, day, year = (int(part) for part in lines[0]["date"].split("/"))
    assert 1 <= month <= 12 < year
    assert 1 <= day <= 31
    assert len(lines[0]["time"].split(":")) == 3
    with pytest.raises(DetectNetError), status.task_status(tmp_path, "Work", append=True):
        raise DetectNetError("no good")
    lines = [json.loads(line) for line in (tmp_path / "status.json").open()]
    assert len(lines) == 5
    assert (lines[-1]["status"], lines[-1]["message"]) == ("FAILURE", "no good")
