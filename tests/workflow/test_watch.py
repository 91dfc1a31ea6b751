"""`snakemake watch`: TensorBoard, and what the trainings' status files tell."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from watch import changes, last_line


def write_status(results: Path, run: str, *lines: dict) -> None:
    path = results / run / "status.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


EPOCH = {"status": "RUNNING", "time": "9:5:1", "message": "epoch 1/2: loss 0.04", "eta": "0:00:09"}
ENDED = {"status": "SUCCESS", "time": "9:6:0", "message": "finished", "eta": "0:00:00"}


def test_a_line_for_each_training_that_moved_on(tmp_path):
    seen = {}
    assert list(changes(tmp_path, seen)) == []
    write_status(tmp_path, "unpruned", {"status": "STARTED", "time": "9:5:0"}, EPOCH)
    assert list(changes(tmp_path, seen)) == [
        "09:05:01  unpruned: epoch 1/2: loss 0.04, 0:00:09 left"
    ]
    write_status(tmp_path, "retrained/0.5", {"status": "STARTED", "time": "9:6:1"})
    write_status(tmp_path, "unpruned", ENDED)
    # Other tasks have a status.json, too.
    write_status(tmp_path, "pruned/0.5", ENDED)
    assert list(changes(tmp_path, seen)) == [
        "09:06:01  retrained/0.5: STARTED",
        "09:06:00  unpruned: finished",
    ]
    assert list(changes(tmp_path, seen)) == []


def test_a_half_written_line_is_left_for_later(tmp_path):
    write_status(tmp_path, "unpruned", EPOCH)
    path = tmp_path / "unpruned/status.json"
    path.write_text(path.read_text() + '{"status": "RUN')
    assert last_line(path) == EPOCH
    assert last_line(tmp_path / "nowhere") == {}


def test_watch_beside_a_run_in_the_same_folder(checkout, environment):
    small = Path(__file__).parent / "small.yaml"
    command = [sys.executable, "-m", "snakemake", "watch", "--cores", "1", "--configfile", small]
    # What a run that is going on in this folder has locked.
    held = checkout / ".snakemake/locks"
    held.mkdir(parents=True, exist_ok=True)
    for kind, path in (
        ("input", "results/kitti/train/fddb.manifest.csv"),
        ("output", "results/report.html"),
    ):
        (held / f"0.{kind}.lock").write_text(f"{path}\n")
    process = subprocess.Popen(
        command,
        cwd=checkout,
        env=environment(checkout),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = checkout / "results/logs/watch.log"
    try:
        deadline = time.monotonic() + 120
        while not (log.exists() and "unpruned:" in log.read_text()):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"watch does not run: {process.stderr.read()}")
            time.sleep(0.1)
        address = re.search(r"http\S+", log.read_text())[0]
        with urllib.request.urlopen(f"{address}data/runs", timeout=60) as response:
            runs = json.load(response)
        assert {"unpruned/events", "retrained/0.9/events", "retrained/0.95/events"} <= set(runs)
    finally:
        # Ctrl-C reaches every process of the terminal.
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert "retrained/0.9: DetectNet_v2 Training finished successfully." in log.read_text()
