"""The rules' scripts as Snakemake runs them, over a small tree, and their one-line errors."""

import errno
import os
import re
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from datasets import tables
from datasets.program import Log, describe
from PIL import Image

NETWORK = {"picture": {"width": 96, "height": 64, "quality": 90}}


@pytest.fixture
def script(repository, tmp_path, monkeypatch):
    """A function that runs scripts/{name}.py as its rule does.

    It gets a `snakemake` object of these fields; the one that is a program gets log, outputs and
    manifests as its arguments.
    """

    def run(name, outputs, inputs=None, threads=1, wildcards=None, **params):
        log = tmp_path / "logs" / f"{name}.log"
        output = [str(tmp_path / path) for path in outputs.values()]
        snakemake = SimpleNamespace(
            input=SimpleNamespace(**(inputs or {})),
            output=Named(output, outputs),
            params=SimpleNamespace(**params),
            wildcards=SimpleNamespace(**(wildcards or {})),
            log=[str(log)],
            threads=threads,
        )
        arguments = [str(log), *output, *map(str, (inputs or {}).get("manifests", ()))]
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(
            str(repository / "scripts" / f"{name}.py"), {"snakemake": snakemake}, "__main__"
        )
        return log.read_text(encoding="utf-8")

    return run


class Named(list):
    """A list whose items have names too, like Snakemake's."""

    def __init__(self, items, names):
        super().__init__(items)
        for item, name in zip(items, names, strict=True):
            setattr(self, name, item)


@pytest.fixture
def datasets(voc, fddb, photo):
    faces = {f"n{n}.jpg": [("mask", 1, 1, 20, 20), ("none", 30, 1, 50, 20)] for n in range(8)}
    ellipses = "".join(f"2002/0{n}/a\n1\n20 15 1.5 50 40 1\n" for n in range(1, 9))
    names = [f"2002/0{n}/a" for n in range(1, 9)]
    ours = {"kaggle": voc(faces), "fddb": fddb(ellipses, names)}
    for seed, name in enumerate(names, start=100):
        photo(Path(ours["fddb"]["root"], f"{name}.jpg"), (100, 80), seed)
    return ours


def test_the_whole_way_from_raw_data_to_kitti(script, datasets, tmp_path):
    classes = ["mask", "no-mask"]
    for name, dataset in datasets.items():
        script(
            "index",
            {"index": f"index/train/{name}.csv"},
            wildcards={"dataset": name, "split": "train"},
            dataset=dataset,
            classes=classes,
            max_bad_fraction=0.02,
        )
    indexes = [tmp_path / f"index/train/{name}.csv" for name in datasets]
    script(
        "group_duplicates",
        {"groups": "index/train/groups.csv"},
        {"indexes": indexes},
        roots={name: dataset["root"] for name, dataset in datasets.items()},
        enabled=True,
        max_distance=12,
        min_correlation=0.87,
    )
    text = script(
        "choose_faces",
        {"selection": "selection/train.csv", "counts": "selection/train.counts.csv"},
        {"indexes": indexes, "groups": tmp_path / "index/train/groups.csv"},
        wildcards={"split": "train"},
        classes=classes,
        category_limit=6000,
        image_folders={"kaggle": "images", "fddb": "."},
        val_percent=20,
        max_bad_fraction=0.02,
    )
    assert text.splitlines()[-1].split() == ["final", "16", "8", "16"]
    selection = tmp_path / "selection/train.csv"
    for name, dataset in datasets.items():
        script(
            "kitti",
            {"manifest": f"kitti/train/{name}.manifest.csv"},
            {"selection": selection},
            wildcards={"dataset": name, "split": "train"},
            root=dataset["root"],
            max_bad_fraction=0.02,
            **NETWORK,
        )
        script(
            "check_labels",
            {"sheet": f"check/{name}.jpg"},
            {"manifest": tmp_path / f"kitti/train/{name}.manifest.csv"},
            wildcards={"dataset": name, "split": "train"},
            classes=classes,
        )
        with Image.open(tmp_path / f"check/{name}.jpg") as sheet:
            assert sheet.width > 6 * 300
    names = [row["name"] for row in tables.read(selection, tables.SELECTION)]
    files = sorted(path.stem for path in (tmp_path / "kitti/train/images").iterdir())
    assert files == sorted(set(names))
    assert any(name.endswith("-fddb-2002_03_a") for name in files)


ODD_NAMES = (
    "photo (1).jpg",
    "photo (2).jpg",
    "  two  blanks .jpg",
    "día/photo (1).jpg",
    "口罩.jpg",
    "quote'\".jpg",
    os.fsdecode(b"caf\xe9.jpg"),
    os.fsdecode(b"caf\xe8.jpg"),
    "UPPER.JPG",
    "upper.jpg",
)


def test_odd_and_repeated_names_the_whole_way(script, voc, tmp_path):
    """Blanks, parentheses, bytes that are no UTF-8, names alike: one file each, all apart."""
    dataset = voc({name: [("mask", 1, 1, 20, 20)] for name in ODD_NAMES})
    classes = ["mask", "no-mask"]
    script(
        "index",
        {"index": "index/train/odd.csv"},
        wildcards={"dataset": "odd", "split": "train"},
        dataset=dataset,
        classes=classes,
        max_bad_fraction=0.0,
    )
    script(
        "group_duplicates",
        {"groups": "index/train/groups.csv"},
        {"indexes": [tmp_path / "index/train/odd.csv"]},
        roots={"odd": dataset["root"]},
        enabled=True,
        max_distance=12,
        min_correlation=0.87,
    )
    script(
        "choose_faces",
        {"selection": "selection/train.csv", "counts": "selection/train.counts.csv"},
        {
            "indexes": [tmp_path / "index/train/odd.csv"],
            "groups": tmp_path / "index/train/groups.csv",
        },
        wildcards={"split": "train"},
        classes=classes,
        category_limit=6000,
        image_folders={"odd": "images"},
        val_percent=20,
        max_bad_fraction=0.0,
    )
    script(
        "kitti",
        {"manifest": "kitti/train/odd.manifest.csv"},
        {"selection": tmp_path / "selection/train.csv"},
        wildcards={"dataset": "odd", "split": "train"},
        root=dataset["root"],
        max_bad_fraction=0.0,
        **NETWORK,
    )
    text = script(
        "kitti_listing",
        {"listing": "kitti/train/listing.csv"},
        {"manifests": [tmp_path / "kitti/train/odd.manifest.csv"]},
    )
    assert text == f"{len(ODD_NAMES)} images, 0 files of no manifest removed\n"
    folder = tmp_path / "kitti/train"
    images = {path.stem for path in (folder / "images").iterdir()}
    assert len({name.lower() for name in images}) == len(ODD_NAMES)
    assert all(re.fullmatch(r"[0-9a-f]{8}-odd-[A-Za-z0-9_-]+", name) for name in images)
    assert {path.stem for path in (folder / "labels").iterdir()} == images
    listed = list(tables.read(folder / "listing.csv", (*tables.MANIFEST, "dataset")))
    assert [row["name"] for row in listed] == sorted(images)
    assert {row["dataset"] for row in listed} == {"odd"}


def converted(folder, dataset, number):
    """A manifest of so many images of a dataset, which are there, and empty; its path."""
    names = [f"{group:08x}-{dataset}-x" for group in range(number)]
    for place, suffix in (("images", ".jpg"), ("labels", ".txt")):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / place / f"{name}{suffix}").touch()
    manifest = folder / f"{dataset}.manifest.csv"
    tables.write(manifest, tables.MANIFEST, [(name, "0" * 64, "0" * 64, "") for name in names])
    (folder / f"{dataset}.journal.csv").touch()
    return manifest


def test_a_listing_leaves_nothing_of_a_dataset_that_is_no_more(script, tmp_path):
    folder = tmp_path / "kitti/train"
    manifests = [converted(folder, name, 3) for name in ("mafa", "mafa2", "fddb")]
    outputs = {"listing": "kitti/train/listing.csv"}
    text = script("kitti_listing", outputs, {"manifests": manifests[1:]})
    assert text == "6 images, 8 files of no manifest removed\n"
    assert sorted(path.name for path in folder.glob("*.csv")) == [
        *("fddb.journal.csv", "fddb.manifest.csv", "listing.csv"),
        *("mafa2.journal.csv", "mafa2.manifest.csv"),
    ]


@pytest.mark.parametrize("absent", ["images/00000001-fddb-x.jpg", "labels/00000001-fddb-x.txt"])
def test_a_listed_file_that_is_absent_is_one_line(script, tmp_path, absent):
    folder = tmp_path / "kitti/train"
    manifest = converted(folder, "fddb", 3)
    (folder / absent).unlink()
    with pytest.raises(SystemExit) as caught:
        script("kitti_listing", {"listing": "kitti/train/listing.csv"}, {"manifests": [manifest]})
    assert caught.value.code == (
        f"error: {folder / absent} is absent, 1 of 3 {absent[:6]} that {manifest} lists: delete"
        " that manifest, so that its dataset is converted again"
    )
    assert not (folder / "listing.csv").exists()


def test_a_listing_on_a_full_disk_is_the_one_of_before(script, tmp_path, short_files):
    manifest = converted(tmp_path / "kitti/train", "many", 100)
    outputs, inputs = {"listing": "kitti/train/listing.csv"}, {"manifests": [manifest]}
    script("kitti_listing", outputs, inputs)
    before = (tmp_path / "kitti/train/listing.csv").read_bytes()
    with short_files(5000), pytest.raises(SystemExit) as caught:
        script("kitti_listing", outputs, inputs)
    part = tmp_path / "kitti/train/listing.csv.part"
    assert caught.value.code == f"error: {part}: File too large"
    assert not part.exists()
    assert (tmp_path / "kitti/train/listing.csv").read_bytes() == before


def test_a_missing_dataset_is_one_line_and_no_output(script, datasets, tmp_path, capsys):
    dataset = {**datasets["kaggle"], "root": str(tmp_path / "gone")}
    with pytest.raises(SystemExit) as caught:
        script(
            "index",
            {"index": "kaggle.csv"},
            wildcards={"dataset": "kaggle", "split": "train"},
            dataset=dataset,
            classes=["mask", "no-mask"],
            max_bad_fraction=0.02,
        )
    message = str(caught.value.code)
    assert message.startswith("error: dataset kaggle: datasets.kaggle.root is ")
    assert "\n" not in message
    assert not (tmp_path / "kaggle.csv").exists()
    assert (tmp_path / "logs/index.log").read_text().strip() == message


def test_operating_system_errors_are_one_line_with_a_remedy():
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/results/a.jpg")
    assert describe(full) == (
        "/results/a.jpg: No space left on device; free space or put results_dir on another disk"
    )
    assert describe(OSError("strange")) == "strange"


def test_no_permission_to_write_is_one_line(repository, voc):
    """Root may write anywhere, so the script runs as a user who may not."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        code = (
            "import os, sys; sys.path.insert(0, 'scripts')\n"
            "from datasets import tables\n"
            "from datasets.program import reported\n"
            "if os.geteuid() == 0: os.setuid(65534)\n"
            "with reported(None):\n"
            f"    tables.write({folder!r} + '/locked/index.csv', tables.INDEX, [])\n"
        )
        locked = Path(folder, "locked")
        locked.mkdir(mode=0o555)
        result = subprocess.run(
            [sys.executable, "-c", code],
            cwd=repository,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 1
        assert result.stderr == (
            f"error: {locked}/index.csv.part: Permission denied; give this user the permission\n"
        )
        assert list(locked.iterdir()) == []


LINES = ["images: 1 of 3", "images: 2 of 3", "images: 3 of 3"]


def test_progress_writes_lines_without_control_characters(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("datasets.program.LOG_INTERVAL_S", 0.0)
    log = Log(tmp_path / "log.txt")
    assert list(log.progress(range(3), 3, "images")) == [0, 1, 2]
    log("name \udce9")
    log.close()
    told = "".join(f"{line}\n" for line in [*LINES, "name \\udce9"])
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == told
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("asks_for_lines", [False, True])
def test_progress_on_a_terminal_is_a_bar_or_lines(tmp_path, monkeypatch, terminal, asks_for_lines):
    monkeypatch.setattr("datasets.program.LOG_INTERVAL_S", 0.0)
    with terminal(lines=asks_for_lines) as shown:
        log = Log(tmp_path / "log.txt")
        assert list(log.progress(range(3), 3, "images")) == [0, 1, 2]
        log.close()
    shown = shown.decode()
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines() == LINES
    if asks_for_lines:
        assert shown.splitlines() == LINES
    else:
        assert "images:   0%|" in shown and "| 3/3 [" in shown
        assert not any(line in shown for line in LINES)
