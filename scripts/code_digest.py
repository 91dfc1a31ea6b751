"""Digest of a script and of everything it imports from this folder, for `params:`.

Snakemake re-runs a rule when its script changes, but not when a module it imports does,
nor when a program behind `shell:` does. A digest among the rule's params closes that gap.
"""

import ast
import hashlib
import json
import os
from contextlib import suppress
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).parent
# Parsing costs half a second in every plan: its results lie beside Python's compiled modules.
_CACHE_FILE = SCRIPTS / "__pycache__" / "code_digest.json"


def code_digest(*modules: str) -> str:
    """SHA-256, 16 hex digits, of the named modules and of what they import from scripts/.

    Comments and formatting do not count: the syntax tree is digested, docstrings included. Every
    Python that the project supports gives the same.
    Raises FileNotFoundError for a module that is not in scripts/.
    """
    seen: set[Path] = set()
    for module in modules:
        path = _path(module)
        if path is None:
            raise FileNotFoundError(f"scripts/ has no module {module!r}")
        _collect(path, seen)
    _save_cache()
    digest = hashlib.sha256()
    for path in sorted(seen):
        digest.update(f"{path.relative_to(SCRIPTS)}\0{_parsed(path)[0]}\0".encode())
    return digest.hexdigest()[:16]


def _collect(path: Path, seen: set[Path]) -> None:
    if path in seen:
        return
    seen.add(path)
    for name in _parsed(path)[1]:
        imported = _path(name)
        if imported is not None:
            _collect(imported, seen)


@cache
def _path(module: str) -> Path | None:
    parts = module.split(".")
    for candidate in (
        SCRIPTS.joinpath(*parts).with_suffix(".py"),
        SCRIPTS.joinpath(*parts, "__init__.py"),
    ):
        if candidate.is_file():
            return candidate
    return None


@cache
def _parsed(path: Path) -> tuple[str, tuple[str, ...]]:
    """Digest of the file's syntax tree and the dotted names that it imports."""
    source = path.read_bytes()
    content = hashlib.sha256(source).hexdigest()
    name = str(path.relative_to(SCRIPTS))
    entries, changed = _cached()
    known = entries.get(name)
    if not (isinstance(known, list) and len(known) == 3 and known[0] == content):
        digest, imported = _parse(path, source)
        known = entries[name] = [content, digest, imported]
        changed.add(name)
    return known[1], tuple(known[2])


def _parse(path: Path, source: bytes) -> tuple[str, list[str]]:
    tree = ast.parse(source, filename=str(path))
    names: list[str] = []
    package = ".".join(path.relative_to(SCRIPTS).with_suffix("").parts[:-1])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                levels = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*levels, *([node.module] if node.module else [])])
            names.append(base)
            names += [f"{base}.{alias.name}" for alias in node.names]
    return hashlib.sha256(_text(tree).encode()).hexdigest(), names


def _text(node: object) -> str:
    """A syntax tree as text; without empty fields, which not every version of Python has."""
    if isinstance(node, list):
        return f"[{','.join(map(_text, node))}]"
    if isinstance(node, ast.JoinedStr):
        # Python 3.12.1 ends some f-strings with an empty text.
        node = [part for part in node.values if getattr(part, "value", None) != ""]
        return f"JoinedStr({_text(node)})"
    if not isinstance(node, ast.AST):
        return ascii(node)
    fields = [
        f"{name}={_text(value)}"
        for name, value in ast.iter_fields(node)
        if value is not None and value != []
    ]
    return f"{type(node).__name__}({','.join(fields)})"


@cache
def _cached() -> tuple[dict[str, list], set[str]]:
    """What is known, by file (digests of bytes and tree, imports), and which of it is new."""
    with suppress(OSError, ValueError):
        entries = json.loads(_CACHE_FILE.read_text(encoding="utf-8"))
        if isinstance(entries, dict):
            return entries, set()
    return {}, set()


def _save_cache() -> None:
    """Keep what is new for the next plan, where the folder can be written."""
    entries, changed = _cached()
    if not changed:
        return
    part = _CACHE_FILE.with_suffix(f".{os.getpid()}.part")
    with suppress(OSError):
        part.parent.mkdir(exist_ok=True)
        part.write_text(json.dumps(entries), encoding="utf-8")
        part.replace(_CACHE_FILE)
    with suppress(OSError):
        part.unlink(missing_ok=True)
    changed.clear()
