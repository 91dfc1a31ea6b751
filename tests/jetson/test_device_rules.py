"""The rule scripts in a real Snakemake run: preflight, push, benchmark, and what failures print."""

import json
import os
import subprocess
import sys

import pytest


def write_snakefile(folder, repository, section, case_folder):
    rules = {
        "preflight_device": ('"preflight_{device}.json"', "", "device=SECTION"),
        "push": (
            'receipt="deployed_{device}/receipt.json"',
            "",
            f'device=SECTION, folders={{"chosen-gpu": {str(case_folder)!r}}}, key_name="KEY"',
        ),
        "benchmark_device": (
            'benchmark="deployed_{device}/benchmark.json", table="deployed_{device}/table.md"',
            'receipt="deployed_{device}/receipt.json"',
            'device=SECTION, metrics={}, logs="logs"',
        ),
    }
    text = f"SECTION = {section!r}\n"
    for name, (output, given, params) in rules.items():
        text += (
            f"rule {name}:\n    input: {given}\n    output: {output}\n"
            f'    log: "{name}_{{device}}.log"\n    params: {params}\n'
            f"    script: {str(repository / 'scripts' / name) + '.py'!r}\n"
        )
    (folder / "Snakefile").write_text(text)


def snakemake(folder, target):
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "-c1", "--nolock", "--latency-wait", "0", target],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_rules(board, rendered, repository, tmp_path):
    folder = tmp_path / "workflow"
    folder.mkdir()
    write_snakefile(folder, repository, board.section(duration_s=1), rendered("chosen-gpu"))
    done = snakemake(folder, "preflight_nano.json")
    assert done.returncode == 0, done.stderr
    assert "nano: ready: NVIDIA Jetson Nano" in (folder / "preflight_device_nano.log").read_text()
    done = snakemake(folder, "deployed_nano/benchmark.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "deployed_nano/benchmark.json").read_text())
    assert found["cases"][0]["fps"]["total"] > 0
    assert "NVIDIA's, published" in (folder / "deployed_nano/table.md").read_text()
    assert (folder / "logs/chosen-gpu/measure.log").exists()

    (board.programs / "deepstream-app").unlink()
    (folder / "preflight_nano.json").unlink()
    done = snakemake(folder, "preflight_nano.json")
    assert done.returncode == 1
    assert "nano: no deepstream-app on the PATH; install DeepStream" in done.stderr
    assert "Traceback" not in done.stderr
    assert (folder / "preflight_device_nano.log").read_text().count("\n") == 1
