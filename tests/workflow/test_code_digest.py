"""The digest of modules and what they import, and its memory between runs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "scripts/code_digest.py"


@pytest.fixture
def scripts(tmp_path) -> Path:
    """A folder of scripts: `main` imports `package.helper`, which imports its neighbour."""
    (tmp_path / "package").mkdir()
    (tmp_path / "code_digest.py").write_bytes(SOURCE.read_bytes())
    (tmp_path / "main.py").write_text("import package.helper\n", encoding="utf-8")
    (tmp_path / "package/helper.py").write_text("from .deep import a\n", encoding="utf-8")
    (tmp_path / "package/deep.py").write_text("a = 1\n", encoding="utf-8")
    (tmp_path / "other.py").write_text("a = 1\n", encoding="utf-8")
    return tmp_path


def digest(scripts: Path) -> str:
    """The digest of `main`, by a process that knows no more than the folder."""
    code = "from code_digest import code_digest; print(code_digest('main'))"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=scripts, capture_output=True, text=True, check=True
    ).stdout.strip()


def memory(scripts: Path) -> Path:
    """The file in which what was parsed is kept."""
    return scripts / "__pycache__/code_digest.json"


def test_remembered_digest_is_the_same(scripts):
    first = digest(scripts)
    assert set(json.loads(memory(scripts).read_text())) == {
        "main.py",
        "package/helper.py",
        "package/deep.py",
    }
    assert digest(scripts) == first
    memory(scripts).unlink()
    assert digest(scripts) == first


@pytest.mark.parametrize("name", ["main.py", "package/helper.py", "package/deep.py"])
def test_change_of_an_imported_module_is_seen(scripts, name):
    first = digest(scripts)
    path = scripts / name
    path.write_text(f"{path.read_text()}b = 2\n")
    assert digest(scripts) != first


def test_comments_and_other_modules_do_not_count(scripts):
    first = digest(scripts)
    path = scripts / "package/deep.py"
    path.write_text(f"# why\n{path.read_text()}")
    (scripts / "other.py").write_text("a = 2\n")
    assert digest(scripts) == first


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00", '{"main.py": 5}'])
def test_damaged_memory_is_replaced(scripts, content):
    first = digest(scripts)
    whole = memory(scripts).read_text()
    memory(scripts).write_text(content)
    assert digest(scripts) == first
    assert memory(scripts).read_text() == whole


def test_memory_that_cannot_be_written_is_done_without(scripts):
    (scripts / "__pycache__").write_text("a file where the folder should be")
    assert len(digest(scripts)) == 16


VARIED = '''
"""Docstring.

    Indented, \u2019.
"""
import package.helper

type_of = {**{}, 1: None, b"\\0": 2.5e-300, ...: 1j}


@decorated()
class Empty: pass


async def nothing(a, /, *b, c=None, d, **e) -> None:
    """Indented
      docstring."""
    global type_of
    try:
        return f"{a!r:>{c}.2f} text {d}" "" f"{e}" f"{'' if b else ''}" ""
    except* (KeyError, OSError):
        del a
    match b:
        case [1, *_, None] | {"k": 2, **rest} if rest:
            yield
    lambda *, k: (yield k)
'''


def other_pythons() -> list[str]:
    """The other supported Pythons of this machine, on the PATH or of pyenv."""
    names = [f"3.{minor}" for minor in (11, 12, 13) if minor != sys.version_info.minor]
    on_path = [shutil.which(f"python{name}") for name in names]
    pyenv = Path.home() / ".pyenv/versions"
    found = [str(path) for name in names for path in pyenv.glob(f"{name}.*/bin/python")]
    return sorted({path for path in [*on_path, *found] if path and starts(path)})


def starts(python: str) -> bool:
    """Whether it is there, and not only a stub."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def test_every_python_gives_the_same_digests(scripts):
    pythons = other_pythons()
    if not pythons:
        pytest.skip("no other supported Python here")
    (scripts / "main.py").write_text(VARIED, encoding="utf-8")
    folder = SOURCE.parent
    own = [str(path.relative_to(folder))[:-3] for path in folder.rglob("*.py")]
    names = [name.replace("/", ".").removesuffix(".__init__") for name in sorted(own)]
    code = (
        "import sys; from pathlib import Path; import code_digest as c;"
        " c._CACHE_FILE = Path('/dev/null/none'); print([c.code_digest(n) for n in sys.argv[1:]])"
    )
    for place, modules in ((scripts, ["main"]), (folder, names)):
        told = {
            python: subprocess.run(
                [python, "-B", "-c", code, *modules],
                cwd=place,
                capture_output=True,
                text=True,
                check=True,
            ).stdout
            for python in (sys.executable, *pythons)
        }
        assert len(set(told.values())) == 1, told
