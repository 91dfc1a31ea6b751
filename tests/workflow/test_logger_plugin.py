"""Under a logger plugin jobs write lines: the plugin itself draws on the terminal."""

import subprocess
import sys

import pytest

PLUGIN = """
from snakemake_interface_logger_plugins.base import LogHandlerBase

class LogHandler(LogHandlerBase):
    writes_to_stream = True
    writes_to_file = has_filter = has_formatter = needs_rulegraph = False

    def emit(self, record):
        pass
"""
JOB = """
include: "Snakefile"
rule told:
    output: "told.txt"
    shell: "echo lines=${{TQDM_DISABLE:-}} > {output}"
"""


@pytest.mark.parametrize(
    ("options", "told"), [((), "lines=\n"), (("--logger", "silent"), "lines=1\n")]
)
def test_jobs_under_a_logger_plugin_are_asked_for_lines(clone, environment, options, told):
    plugin = clone / "plugins/snakemake_logger_plugin_silent"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text(PLUGIN)
    (clone / "told.smk").write_text(JOB)
    variables = environment(clone)
    variables["PYTHONPATH"] = str(plugin.parent)
    variables.pop("TQDM_DISABLE", None)
    command = [sys.executable, "-m", "snakemake", "told", "--snakefile", "told.smk", *options]
    done = subprocess.run(
        command, cwd=clone, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (clone / "told.txt").read_text() == told
