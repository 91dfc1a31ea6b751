"""The scripts that run on the device are POSIX sh, since nothing else is sure to be there."""

import re
import shutil
import subprocess

import pytest
from jetson.session import DEVICE_SCRIPTS, device_script, facts

SCRIPTS = sorted(path.stem for path in DEVICE_SCRIPTS.glob("*.sh"))
# What bash has and POSIX has not, apart from what a parser of sh refuses anyway.
BASHISMS = re.compile(r"\[\[|\bfunction \w|\blocal \w|<<<|&>|\becho -[en]|\bdeclare\b|\(\( ")


def test_there_are_scripts():
    assert {"common", "driver", "install", "preflight", "state"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
@pytest.mark.parametrize("shell", ["dash", "busybox sh", "bash --posix"])
def test_shells_parse_it(name, shell):
    command = shell.split()
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    # As it is sent: in braces, all at once.
    text = "{\n" + device_script("common", name) + "\n}\n"
    subprocess.run([*command, "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_bashisms(name):
    lines = (DEVICE_SCRIPTS / f"{name}.sh").read_text().splitlines()
    code = [line for line in lines if not line.lstrip().startswith("#")]
    assert [line for line in code if BASHISMS.search(line)] == []


def test_facts_pass_over_noise():
    assert facts("Welcome\n@a\tb c\n@no tab\n@d\t\nnot@e\tf\n") == {"a": "b c", "d": ""}


@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name):
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck")
    text = "#!/bin/sh\n" + device_script(*dict.fromkeys(("common", "engines", name)))
    # 2088: a tilde is matched, not expanded; 2154: the request that the driver reads assigns them.
    command = ["shellcheck", "--shell=dash", "--severity=warning", "--exclude=2088,2154", "-"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
