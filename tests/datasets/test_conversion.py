"""Conversion to a KITTI folder: files, incremental runs, kills, full disks, ownership."""

import csv
import errno
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from datasets import conversion, tables
from datasets.conversion import Settings, convert, label_line, tasks_of
from datasets.errors import DatasetError
from datasets.kitti_folder import remove_orphans
from PIL import Image

SETTINGS = Settings(96, 64, 90)


@pytest.fixture
def chosen(tmp_path, photo):
    """A function that writes raw pictures and a selection: the raw root and the CSV."""

    def make(names, dataset="kaggle", faces=((1, 2, 33, 44),), size=(128, 128)):
        root = tmp_path / "raw" / dataset
        rows = []
        for seed, name in enumerate(names):
            if not (root / f"{name}.jpg").exists():
                photo(root / f"{name}.jpg", size, seed)
            group = hashlib.sha256(name.encode()).hexdigest()[:8]
            rows += [
                (dataset, f"{name}.jpg", f"{group}-{dataset}-{name}", *size, *face)
                for face in [("mask", *face) for face in faces] or [("",) * 5]
            ]
        path = tmp_path / f"{dataset}.selection.csv"
        tables.write(path, tables.SELECTION, sorted(rows, key=lambda row: row[2]))
        return root, path

    return make


def run(chosen_paths, folder, log, dataset="kaggle", settings=SETTINGS, max_bad=0.5, threads=1):
    root, selection = chosen_paths
    tasks = tasks_of(dataset, selection, root, settings)
    return convert(dataset, tasks, folder, settings, max_bad, log, threads)


def states(folder):
    paths = [path for place in ("images", "labels") for path in (folder / place).iterdir()]
    return {path.name: path.stat().st_mtime_ns for path in paths}


def test_label_line_has_the_15_columns_of_kitti():
    assert label_line("no-mask", (0, 1.006, 20.5, 300)) == (
        "no-mask 0.00 0 0.00 0.00 1.01 20.50 300.00 0.00 0.00 0.00 0.00 0.00 0.00 0.00\n"
    )


@pytest.mark.parametrize("threads", [1, 2])
def test_pictures_are_stretched_and_boxes_scaled(chosen, tmp_path, log, threads):
    names = [f"n{index}" for index in range(20)]
    paths = chosen(names, faces=((1, 2, 33, 44), (0, 0, 128, 128)))
    rows = run(paths, tmp_path / "kitti", log, threads=threads)
    assert len(rows) == 20
    assert rows == sorted(rows)
    for name, image_sha256, label_sha256, error in rows:
        image = (tmp_path / "kitti/images" / f"{name}.jpg").read_bytes()
        label = (tmp_path / "kitti/labels" / f"{name}.txt").read_bytes()
        assert hashlib.sha256(image).hexdigest() == image_sha256
        assert hashlib.sha256(label).hexdigest() == label_sha256
        assert not error
    assert label.decode().splitlines() == [
        "mask 0.00 0 0.00 0.75 1.00 24.75 22.00 0.00 0.00 0.00 0.00 0.00 0.00 0.00",
        "mask 0.00 0 0.00 0.00 0.00 96.00 64.00 0.00 0.00 0.00 0.00 0.00 0.00 0.00",
    ]
    with Image.open(tmp_path / "kitti/images" / f"{name}.jpg") as image:
        assert image.size == (96, 64)


def test_a_background_image_has_an_empty_label(chosen, tmp_path, log):
    ((name, _, _, error),) = run(chosen(["a"], faces=()), tmp_path / "kitti", log)
    assert not error
    assert (tmp_path / "kitti/labels" / f"{name}.txt").read_bytes() == b""


def test_a_second_run_touches_nothing(chosen, tmp_path, log):
    paths, folder = chosen(["a", "b"]), tmp_path / "kitti"
    rows, before = run(paths, folder, log), states(folder)
    assert run(paths, folder, log) == rows
    assert states(folder) == before
    assert "2 up to date, 0 to convert" in log.text()


def test_only_new_and_changed_images_are_converted_and_old_ones_removed(
    chosen, photo, tmp_path, log
):
    folder = tmp_path / "kitti"
    first = {row[0]: row for row in run(chosen(["a", "b", "c"]), folder, log)}
    before = states(folder)
    photo(tmp_path / "raw/kaggle/b.jpg", (128, 128), seed=9)
    rows = {row[0]: row for row in run(chosen(["b", "c", "d"]), folder, log)}
    after = states(folder)
    names = {name[-1]: name for name in (*first, *rows)}
    assert "1 up to date, 2 to convert, 2 files removed" in log.text()
    assert len(after) == 6
    assert not any(name.startswith(names["a"]) for name in after)
    assert rows[names["c"]] == first[names["c"]]
    assert rows[names["b"]][1] != first[names["b"]][1]
    assert after[f"{names['c']}.jpg"] == before[f"{names['c']}.jpg"]


def test_changed_boxes_rewrite_the_label_only(chosen, tmp_path, log):
    folder = tmp_path / "kitti"
    (first,) = run(chosen(["a"]), folder, log)
    before = states(folder)
    (second,) = run(chosen(["a"], faces=((5, 5, 50, 50),)), folder, log)
    after = states(folder)
    assert first[1] == second[1]
    assert first[2] != second[2]
    assert before[f"{first[0]}.jpg"] == after[f"{first[0]}.jpg"]
    assert " 3.75 2.50 37.50 25.00 " in (folder / "labels" / f"{first[0]}.txt").read_text()


@pytest.mark.parametrize("place", ["images", "labels"])
def test_a_file_changed_or_lost_by_hand_is_made_again(chosen, tmp_path, log, place):
    paths, folder = chosen(["a", "b"]), tmp_path / "kitti"
    rows = run(paths, folder, log)
    first, second = sorted((folder / place).iterdir())
    first.write_bytes(b"something else")
    second.unlink()
    assert run(paths, folder, log) == rows
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / place).iterdir()}
    assert digests == {row[1 if place == "images" else 2] for row in rows}


def test_other_settings_start_afresh(chosen, tmp_path, log):
    paths, folder = chosen(["a", "b"]), tmp_path / "kitti"
    run(paths, folder, log)
    run(paths, folder, log, settings=Settings(96, 64, 50))
    assert "0 up to date, 2 to convert, 4 files removed" in log.text()
    assert SETTINGS.digest() != Settings(96, 64, 50).digest()
    assert SETTINGS.digest() == Settings(96, 64, 90).digest()


def test_a_corrupt_body_is_in_the_manifest_and_leaves_no_file(chosen, tmp_path, log):
    paths, folder = chosen(["a", "b", "c"]), tmp_path / "kitti"
    run(paths, folder, log)
    source = tmp_path / "raw/kaggle/b.jpg"
    source.write_bytes(source.read_bytes()[:-300])
    rows = run(paths, folder, log)
    (bad,) = [row for row in rows if row[3]]
    assert bad[0].endswith("-kaggle-b")
    assert bad[1:3] == ("", "")
    assert bad[3] == "image is damaged: Premature end of JPEG file"
    assert len(states(folder)) == 4
    assert run(paths, folder, log) == rows
    assert "3 up to date, 0 to convert" in log.text()


def test_missing_and_resized_images_are_reported(chosen, photo, tmp_path, log):
    paths = chosen(["a", "b", "c", "d"])
    (tmp_path / "raw/kaggle/a.jpg").unlink()
    photo(tmp_path / "raw/kaggle/b.jpg", (64, 64))
    rows = run(paths, tmp_path / "kitti", log)
    assert {row[0][-1]: row[3] for row in rows} == {
        "a": "image cannot be read: No such file or directory",
        "b": "image is 64 x 64 pixels, 128 x 128 by its header",
        "c": "",
        "d": "",
    }


def test_too_many_corrupt_images_stop_the_run(chosen, tmp_path, log):
    paths = chosen(["a", "b", "c"])
    (tmp_path / "raw/kaggle/a.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(DatasetError, match=r"1 of 3 images .* max_bad_fraction 0.1; first: .*-a: "):
        run(paths, tmp_path / "kitti", log, max_bad=0.1)


def test_a_full_disk_leaves_nothing_half_written(chosen, tmp_path, log, monkeypatch):
    paths, folder = chosen(["a", "b", "c", "d"]), tmp_path / "kitti"
    replace = os.replace
    replaced = []

    def until_full(source, target):
        replaced.append(target)
        if len(replaced) > 1 + 5:  # the journal, then five files
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        replace(source, target)

    monkeypatch.setattr(os, "replace", until_full)
    with pytest.raises(OSError, match="No space left"):
        run(paths, folder, log)
    assert not [name for name in states(folder) if name.endswith(".part")]
    monkeypatch.undo()
    rows = run(paths, folder, log)
    assert "2 up to date, 2 to convert" in log.text()
    assert len(rows) == 4
    assert len(states(folder)) == 8


def test_a_write_that_the_system_cuts_short_is_no_file(chosen, tmp_path, repository):
    """A limit on the size of files makes write() stop in the middle, as a full disk does."""
    root, selection = chosen(["a", "b"])
    folder = tmp_path / "kitti"
    code = textwrap.dedent(f"""
        import resource, sys; sys.path.insert(0, {str(repository / "scripts")!r})
        from pathlib import Path
        from datasets.conversion import Settings, convert, tasks_of
        from datasets.program import reported
        settings = Settings(960, 544, 90)
        tasks = tasks_of("kaggle", {str(selection)!r}, {str(root)!r}, settings)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with reported(None) as log:
            convert("kaggle", tasks, Path({str(folder)!r}), settings, 0.5, log, 1)
    """)
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {folder}/images/")
    assert last.endswith("-kaggle-b.jpg.part: File too large")
    assert "Traceback" not in result.stderr
    assert states(folder) == {}


def test_a_journal_cut_off_in_a_line_loses_that_line_only(chosen, tmp_path, log):
    paths, folder = chosen(["a", "b", "c"]), tmp_path / "kitti"
    rows = run(paths, folder, log)
    journal = folder / "kaggle.journal.csv"
    journal.write_text(journal.read_text()[:-30])
    assert run(paths, folder, log) == rows
    assert "2 up to date, 1 to convert" in log.text()
    with journal.open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 3


def test_kill_9_keeps_what_is_finished(chosen, tmp_path, log, repository):
    """The program is killed amid its work with two workers; they end, and a new run goes on."""
    names = [f"n{index:03d}" for index in range(60)]
    root, selection = chosen(names, size=(1200, 900))
    folder = tmp_path / "kitti"
    code = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(repository / "scripts")!r})
        from pathlib import Path
        from datasets.conversion import Settings, convert, tasks_of
        from datasets.program import Log
        settings = Settings(960, 544, 90)
        tasks = tasks_of("kaggle", {str(selection)!r}, {str(root)!r}, settings)
        convert("kaggle", tasks, Path({str(folder)!r}), settings, 0.5, Log(None), 2)
    """)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    journal = folder / "kaggle.journal.csv"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if journal.exists() and journal.read_bytes().count(b"\n") > 4:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = {row[0] for row in csv.reader(journal.open(newline="")) if len(row) == 7}
    assert 4 <= len(finished) < 60
    # Workers of the killed program may still write for a moment.
    time.sleep(2 * 1.0)
    before = states(folder)
    rows = run((root, selection), folder, log, settings=Settings(960, 544, 90), threads=2)
    after = states(folder)
    assert len(rows) == 60
    assert len(after) == 120
    assert not [name for name in after if name.endswith(".part")]
    kept = [name for name, state in before.items() if after.get(name) == state]
    assert {Path(name).stem for name in kept} >= finished


def test_a_job_removes_only_what_is_its_own(chosen, tmp_path, log):
    folder = tmp_path / "kitti"
    run(chosen(["a", "b"], "mafa"), folder, log, "mafa")
    run(chosen(["a"], "mafa2"), folder, log, "mafa2")
    (folder / "images/deadbeef-mafa-old.jpg.part").write_bytes(b"half")
    (folder / "images/notes.jpg").write_bytes(b"somebody's")
    run(chosen(["a"], "mafa"), folder, log, "mafa")
    names = {name.split("-", 1)[-1] for name in states(folder)}
    assert names == {"mafa-a.jpg", "mafa-a.txt", "mafa2-a.jpg", "mafa2-a.txt", "notes.jpg"}


def test_orphans_of_a_removed_dataset_go(chosen, tmp_path, log):
    folder = tmp_path / "kitti"
    manifests = []
    for dataset in ("mafa", "fddb"):
        rows = run(chosen(["a", "b"], dataset), folder, log, dataset)
        manifests.append(folder / f"{dataset}.manifest.csv")
        tables.write(manifests[-1], tables.MANIFEST, rows)
    assert remove_orphans(folder, manifests) == 0
    (folder / "images/stray.png").write_bytes(b"")
    assert remove_orphans(folder, manifests[:1]) == 5
    assert {name.split("-")[1] for name in states(folder)} == {"mafa"}
    assert remove_orphans(tmp_path / "nothing", []) == 0


def test_the_digest_follows_the_code(monkeypatch, tmp_path):
    before = SETTINGS.digest()
    changed = tmp_path / "pixels.py"
    changed.write_text("another algorithm")
    monkeypatch.setattr(conversion.pixels, "__file__", str(changed))
    assert SETTINGS.digest() != before
