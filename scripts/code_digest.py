"""Digest of a script and of everything it imports from this folder, for `params:`.

Snakemake re-runs a rule when its script changes, but not when a module it imports does,
nor when a program behind `shell:` does. A digest among the rule's params closes that gap.
"""

import ast
import hashlib
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).parent


def code_digest(*modules: str) -> str:
    """SHA-256, 16 hex digits, of the named modules and of what they import from scripts/.

    Comments and formatting do not count: the syntax tree is digested, docstrings included.
    Raises FileNotFoundError for a module that is not in scripts/.
    """
    seen: set[Path] = set()
    for module in modules:
        path = _path(module)
        if path is None:
            raise FileNotFoundError(f"scripts/ has no module {module!r}")
        _collect(path, seen)
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
    tree = ast.parse(path.read_bytes(), filename=str(path))
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
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), tuple(names)
