"""What the pages say of messages, settings, commands and one another is so."""

import ast
import itertools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from detectnet_v2.cli import TASKS, build_parser
from documentation import config_table
from snakemake.cli import get_argument_parser

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in (
        *sorted(REPOSITORY.glob("*.md")),
        *sorted(REPOSITORY.glob("docs/*.md")),
        REPOSITORY / "config/README.md",
    )
}
# Snakemake's, the kernel's, PyTorch's, the SSH client's.
OTHERS_MESSAGES = {
    "Connection refused",
    "IncompleteFilesException",
    "Killed",
    "LockException",
    "No route to host",
    "No rule to produce ...",
    "The NVIDIA driver on your system is too old",
    "out of memory",
}
# What stands for a value in a message.
VALUES = r"\.\.\.|\w+(?:\.\w+)+|[\"'/]\w\S*|\b(?:\d\w*|[A-Z]+[A-Z\d_]+|N|cpu)\b"
# Overlays that a reader writes, and a device in one.
EXAMPLES = {"overlay.yaml", "wide.yaml", "deploy_kiosk", "preflight_kiosk"}


def spans(page: str) -> list[str]:
    """What stands in backticks, outside of blocks."""
    return re.findall(
        r"`([^`\n]+)`", re.sub(r"^ *```.*?^ *```$", "", PAGES[page], flags=re.M | re.S)
    )


def commands(page: str, program: str) -> list[list[str]]:
    """The words of each command line of a program, in shell blocks and in backticks."""
    blocks = re.findall(r"^ *```(?:sh)?\n(.*?)^ *```$", PAGES[page], re.M | re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines() + spans(page)
    found = [re.search(rf"(?:^|[ /])({program} .*)", line) for line in lines]
    return [shlex.split(line[1], comments=True) for line in found if line]


def messages() -> list[tuple[str, str]]:
    """Page and message of each row of a table of messages."""
    found = []
    for page, text in PAGES.items():
        for table in re.findall(
            r"^\| (?:message|line|reason) \|.*\n\|-.*\n((?:\|.*\n)+)", text, re.M
        ):
            for row in table.splitlines():
                found += [
                    (page, message) for message in re.findall(r"`([^`]+)`", row.split(" | ")[0])
                ]
    return found


def texts_of_the_sources() -> str:
    """All strings of the Python sources, as they are when joined, and the other sources."""
    strings = []
    for path in REPOSITORY.glob("scripts/**/*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                parts = [p.value if isinstance(p, ast.Constant) else "{}" for p in node.values]
                strings.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and id(node) not in docstrings:
                strings.append(str(node.value))
    others = (*REPOSITORY.glob("rules/*.smk"), *REPOSITORY.glob("scripts/**/*.sh"))
    return "\n".join([*strings, *(path.read_text(encoding="utf-8") for path in others)])


def chunks(piece: str, sources: str) -> list[str]:
    """Cut a piece of a message where the code has a value in it: into texts of the sources."""
    words, found = piece.split(), []
    while words:
        whole = (" ".join(words[:end]) for end in range(len(words), 0, -1))
        found.append(next((text for text in whole if text in sources), words[0]))
        del words[: len(found[-1].split())]
    return found


def test_quoted_messages_are_those_of_the_code():
    sources = texts_of_the_sources()
    quoted = messages()
    assert {"docs/troubleshooting.md", "docs/jetson.md"} <= {page for page, _ in quoted}
    for page, message in quoted:
        if message not in OTHERS_MESSAGES:
            for piece in re.split(rf"{VALUES}|[:;,?] |[\[\]]", message):
                found = chunks(piece, sources)
                said = f"{page}: {message}: {found}"
                assert all(text in sources for text in found), said
                assert len(found) <= (len(piece.split()) + 1) // 2, said


def test_settings_in_the_text_are_in_the_schema():
    schema = yaml.safe_load((REPOSITORY / "config/config.schema.yaml").read_text())
    keys = re.findall(r"^\| `(\S+)`", config_table(schema, {}), re.M)
    patterns = [re.compile(re.escape(key).replace("<name>", r"[\w<>-]+")) for key in keys]
    sections = {key.split(".")[0] for key in keys}
    seen = 0
    for page in PAGES:
        for span in spans(page):
            key = re.match(r"(\w+)(\.(?!smk)[\w<>-]+)+(?=$|: )", span)
            if key and key[1] in sections:
                seen += 1
                name = re.sub(r"^retrain\.", "train.", key[0])
                assert any(p.fullmatch(name) for p in patterns), f"{page}: {span}"
    assert seen > 20


def test_snakemake_is_called_as_it_can_be(environment):
    listed = subprocess.run(
        [sys.executable, "-m", "snakemake", "--list-rules"],
        cwd=REPOSITORY,
        env=environment(REPOSITORY),
        capture_output=True,
        text=True,
        check=True,
    )
    rules = set(listed.stdout.split())
    assert "check_labels" in rules
    for page in PAGES:
        for words in commands(page, "snakemake"):
            line = " ".join(words)
            # A plugin is known where it is installed.
            without_plugin = [word for word in words[1:] if word not in ("--logger", "rich")]
            args = get_argument_parser().parse_args(without_plugin)
            for target in (*args.targets, *(args.forcerun or [])):
                known = re.sub(r"<\w+>", "nano", target) in rules | EXAMPLES
                assert known or "/" in target or target == "...", f"{page}: {line}"
            for file in {str(path) for path in args.configfile or []} - EXAMPLES:
                assert (REPOSITORY / file).is_file(), f"{page}: {line}"


@pytest.mark.parametrize("page", PAGES)
def test_flags_of_the_toolkit_are_its_own(page, capsys):
    for _, task, *words in commands(page, "detectnet_v2"):
        if task in TASKS:
            with pytest.raises(SystemExit):
                build_parser(task).parse_args([task, "--help"])
            known = set(re.findall(r"(?<![\w-])--?\w[\w-]*", capsys.readouterr().out))
            flags = {word for word in words if re.match(r"--?[a-z]", word)}
            assert flags <= known, f"{page}: {task}: {flags - known}"


@pytest.mark.parametrize("page", PAGES)
def test_flags_of_programs_are_in_their_sources(page):
    modules = [(words[2], words[3:]) for words in commands(page, "python -m")]
    programs = [(words[1], words[2:]) for words in commands(page, r"python \S+\.py")]
    for name, words in (*modules, *programs):
        package = (REPOSITORY / "scripts" / name).glob("*.py")
        files = [REPOSITORY / name] if name.endswith(".py") else list(package)
        assert files, f"{page}: {name}"
        sources = "".join(file.read_text(encoding="utf-8") for file in files)
        for flag in (word for word in words if re.match(r"--?[a-z]", word)):
            assert f'"{flag}"' in sources, f"{page}: {name} {flag}"


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_a_copied_release_takes_the_place_of_the_one_before():
    """`cp -r` and `scp -r` put a folder into one of that name, and the old model would run."""
    copies = [
        (before, line)
        for text in PAGES.values()
        for before, line in itertools.pairwise(text.splitlines())
        if re.search(r"\b(cp -rL|scp -r) ", line)
    ]
    assert len(copies) == 3
    for before, line in copies:
        assert "rm -rf try" in line.partition("cp -r")[0] or before.endswith("rm -rf try"), line


def test_pages_link_to_files_and_headings_that_are_there():
    for page, text in PAGES.items():
        here = REPOSITORY / page
        for link, _, anchor in re.findall(r"\]\(([^)#\s]*)(#?)([^)\s]*)\)", text):
            if "://" not in link:
                target = here.parent / link if link else here
                assert target.exists(), f"{page}: {link}"
                assert not anchor or anchor in anchors(target), f"{page}: {link}#{anchor}"
