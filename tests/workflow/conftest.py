"""One finished small run of the workflow, and ways to ask what Snakemake would do next."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

SOURCES = ("Snakefile", "rules", "scripts", "config", "specs", "ds_configs", "profiles", "envs")
CONFIG_FILE = Path(__file__).parent / "small.yaml"
RAW_IMAGES = {
    "medical-masks": 24,
    "mafa-train": 16,
    "mafa-test": 8,
    "fddb": 14,
    "widerface-train": 12,
    "widerface-val": 8,
}


def copy_sources(repository: Path, folder: Path) -> Path:
    """A checkout of what Snakemake reads."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        source = repository / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
            shutil.copytree(source, folder / name, ignore=ignored)
        elif source.exists():
            shutil.copy2(source, folder / name)
    return folder


def environment_of(folder: Path) -> dict[str, str]:
    """The environment in which a checkout runs this interpreter's programs."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PATH": path}


def run_snakemake(
    folder: Path, *arguments: str, config: dict | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in a checkout, as typed, and return the finished process.

    `config` overlays the small run's settings.
    """
    overlay = folder / "overlay.yaml"
    overlay.write_text(yaml.safe_dump(config or {}), encoding="utf-8")
    command = [sys.executable, "-m", "snakemake", *arguments]
    command += ["--configfile", str(CONFIG_FILE), str(overlay)]
    done = subprocess.run(
        command, cwd=folder, env=environment_of(folder), capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done


@contextmanager
def modules_of_its_own(folder: Path) -> Iterator[None]:
    """Let a checkout import its own scripts, and forget them afterwards."""
    path, argv, cwd = sys.path.copy(), sys.argv, Path.cwd()
    own = {entry.stem for entry in (folder / "scripts").iterdir()}
    saved = {name: module for name, module in sys.modules.items() if name.split(".")[0] in own}
    for name in saved:
        del sys.modules[name]
    sys.argv = ["snakemake"]
    try:
        yield
    finally:
        os.chdir(cwd)
        sys.path[:], sys.argv = path, argv
        for name in [name for name in sys.modules if name.split(".")[0] in own]:
            del sys.modules[name]
        sys.modules.update(saved)


def planned(folder: Path, *targets: str, config: dict | None = None) -> set[tuple[str, str]]:
    """Rule and wildcards of every job that Snakemake would run now in a checkout.

    `config` overlays the small run's settings.
    """
    from snakemake.api import SnakemakeApi
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        OutputSettings,
        Quietness,
        ResourceSettings,
        StorageSettings,
    )

    with (
        modules_of_its_own(folder),
        SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, dryrun=True)) as api,
    ):
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=ConfigSettings(config=config or {}, configfiles=[CONFIG_FILE]),
            storage_settings=StorageSettings(),
            snakefile=folder / "Snakefile",
            workdir=folder,
        )
        dag_api = workflow.dag(DAGSettings(targets=set(targets), max_checksum_file_size=50_000_000))
        dag_api.execute_workflow(executor="dryrun")
        dag = workflow._workflow.dag
        return {
            (job.rule.name, "/".join(map(str, job.wildcards)))
            for job in dag.jobs
            if dag.needrun(job)
        }


@pytest.fixture(scope="session")
def raw_tree(tmp_path_factory) -> Path:
    """Small generated raw data in the four layouts."""
    from scenes import write_raw_tree

    folder = tmp_path_factory.mktemp("scenes") / "raw"
    write_raw_tree(folder, images=RAW_IMAGES, seed=7, size=(200, 120))
    return folder


@pytest.fixture(scope="session")
def fresh_checkout(tmp_path_factory, repository, raw_tree) -> Path:
    """A checkout with raw data that nothing has run in."""
    folder = copy_sources(repository, tmp_path_factory.mktemp("workflow") / "fresh")
    shutil.copytree(raw_tree, folder / "raw")
    return folder


@pytest.fixture(scope="session")
def finished_checkout(tmp_path_factory, fresh_checkout) -> Path:
    """The same after a full run; not to be changed."""
    folder = tmp_path_factory.mktemp("workflow") / "finished"
    shutil.copytree(fresh_checkout, folder)
    run_snakemake(folder, "all", "--cores", "2")
    return folder


@pytest.fixture
def clone(tmp_path, repository) -> Path:
    """A checkout as git leaves it: no data, no run, no settings but the committed ones."""
    return copy_sources(repository, tmp_path / "clone")


@pytest.fixture
def checkout(tmp_path, finished_checkout) -> Path:
    """A copy of the finished run that a test may change."""
    folder = tmp_path / "checkout"
    shutil.copytree(finished_checkout, folder, symlinks=True)
    return folder


@pytest.fixture
def crowded_checkout(tmp_path, repository) -> Path:
    """A checkout with one Pascal VOC dataset, `crowd`, of more faces than a megabyte holds."""
    folder = copy_sources(repository, tmp_path / "crowd")
    config = yaml.safe_load((folder / "config/config.yaml").read_text(encoding="utf-8"))
    config["datasets"] = {
        "crowd": {
            "layout": "voc",
            "root": "crowd",
            "class_map": {"face": "no-mask"},
            "splits": {"train": {"images": "images", "annotations": "labels"}},
        }
    }
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    for name in ("images", "labels"):
        (folder / "raw/crowd" / name).mkdir(parents=True)
    boxes = "".join(
        f"<object><name>face</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin>"
        f"<xmax>{x + 9}</xmax><ymax>{y + 9}</ymax></bndbox></object>"
        for x in range(0, 190, 4)
        for y in range(0, 110, 4)
    )
    random = np.random.default_rng(0)
    for number in range(12):
        pixels = random.integers(0, 255, (12, 20, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((200, 120))
        image.save(folder / f"raw/crowd/images/{number}.jpg")
        label = f"<annotation><filename>{number}.jpg</filename>{boxes}</annotation>"
        (folder / f"raw/crowd/labels/{number}.xml").write_text(label, encoding="utf-8")
    return folder


@pytest.fixture
def forgo_privileges() -> Callable[[], None]:
    """For a subprocess's `preexec_fn`: permissions of files hold for root, too."""

    def drop() -> None:
        # linux/prctl.h and capability.h: PR_CAPBSET_DROP of DAC_OVERRIDE and DAC_READ_SEARCH.
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2) if os.geteuid() == 0 else ():
            if libc.prctl(24, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")

    return drop


@pytest.fixture
def snakemake() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Snakemake, as typed, in a checkout (see run_snakemake)."""
    return run_snakemake


@pytest.fixture
def environment() -> Callable[[Path], dict[str, str]]:
    """The environment of a checkout (see environment_of)."""
    return environment_of


@pytest.fixture
def plan() -> Callable[..., set[tuple[str, str]]]:
    """Rules and wildcards of the jobs that Snakemake would run (see planned)."""
    return planned
