"""Writes the parts of the documentation that the code knows better: rule graph and config table.

python scripts/documentation.py            rewrites them in README.md and config/README.md
python scripts/documentation.py --check    exits 1 where they are out of date
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
TARGETS = ["all", "deploy_nano"]


def rule_graph(mermaid: str) -> str:
    """Snakemake's rule graph as a Mermaid flow chart without the edges that a longer way implies.

    The rules below the conversion name its outputs once more (see `converted` in rules/common.smk);
    a reader wants to see the way that the data take.
    """
    names = dict(re.findall(r"^\s*(\w+)\[(\w+)\]$", mermaid, re.MULTILINE))
    edges: dict[str, set[str]] = {name: set() for name in names.values()}
    for source, target in re.findall(r"^\s*(\w+) --> (\w+)$", mermaid, re.MULTILINE):
        if source in names and target in names:
            edges[names[source]].add(names[target])
    lines = ["flowchart TD"]
    for source in sorted(edges.keys() - set(TARGETS)):
        for target in sorted(edges[source] - set(TARGETS)):
            others = edges[source] - {target}
            if not any(target in _reachable(edges, other) for other in others):
                lines.append(f"    {source} --> {target}")
    return "\n".join(lines)


def _reachable(edges: dict[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    pending = [start]
    while pending:
        for target in edges[pending.pop()] - seen:
            seen.add(target)
            pending.append(target)
    return seen


def config_table(schema: dict[str, Any], config: dict[str, Any]) -> str:
    """Every key of the schema as a Markdown table: key, type, value in config.yaml, meaning."""
    rows = ["| key | type | config.yaml | meaning |", "|---|---|---|---|"]
    for key, kind, value, meaning in _keys(schema, schema, config, ""):
        shown = (
            "" if value is None else f"`{yaml.safe_dump(value, default_flow_style=True).strip()}`"
        )
        shown = shown.replace("\n...", "").replace("|", "\\|")
        rows.append(f"| `{key}` | {kind} | {shown} | {meaning} |")
    return "\n".join(rows)


def _keys(
    schema: dict[str, Any], root: dict[str, Any], value: Any, prefix: str
) -> list[tuple[str, str, Any, str]]:
    found = []
    for key, declared in schema.get("properties", {}).items():
        merged: dict[str, Any] = {}
        for part in (declared, *declared.get("allOf", [])):
            reference = part.get("$ref", "").rsplit("/", 1)[-1]
            merged = _overlaid(merged, root["$defs"][reference] if reference else {})
            merged = _overlaid(merged, part)
        name = f"{prefix}{key}"
        given = value.get(key) if isinstance(value, dict) else None
        below = merged.get("properties")
        named = merged.get("additionalProperties")
        is_map = isinstance(named, dict) and "properties" in named
        shown = None if below or is_map else given if given is not None else merged.get("default")
        meaning = declared.get("description", merged.get("description", ""))
        found.append((name, _kind(merged), shown, meaning))
        if key == "retrain":
            continue  # The keys of train, which stand above it.
        if below:
            found += _keys(merged, root, given, f"{name}.")
        if is_map:
            found += _keys(named, root, None, f"{name}.<name>.")
    return found


def _overlaid(schema: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both schemas, the second one's words before the first one's; of properties, all of both."""
    result = {**schema, **other}
    both = schema.get("properties", {}), other.get("properties", {})
    if all(both):
        names = [*both[0], *(name for name in both[1] if name not in both[0])]
        result["properties"] = {
            name: _overlaid(both[0].get(name, {}), both[1].get(name, {})) for name in names
        }
    return result


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    if "oneOf" in schema:
        return "number or map"
    kind = schema.get("type", "")
    text = " or ".join(kind) if isinstance(kind, list) else str(kind)
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f"{text}, {low} to {high}"
    if low is not None:
        return f"{text}, {'above' if 'exclusiveMinimum' in schema else 'at least'} {low}"
    return {"object": "section", "array": "list"}.get(text, text)


def replaced(document: str, mark: str, block: str) -> str:
    """The document with the text between `<!-- mark -->` and `<!-- end mark -->` replaced.

    Raises ValueError when the marks are not there.
    """
    pattern = re.compile(rf"(<!-- {mark} -->\n).*?(\n<!-- end {mark} -->)", re.DOTALL)
    if not pattern.search(document):
        raise ValueError(f"no <!-- {mark} --> ... <!-- end {mark} -->")
    return pattern.sub(lambda found: found[1] + block + found[2], document)


def documents() -> dict[Path, str]:
    """The files with generated parts, as they should be."""
    drawn = subprocess.run(
        [sys.executable, "-m", "snakemake", *TARGETS, "--rulegraph", "mermaid-js"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    schema = yaml.safe_load((ROOT / "config/config.schema.yaml").read_text(encoding="utf-8"))
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    readme, reference = ROOT / "README.md", ROOT / "config/README.md"
    graph = f"```mermaid\n{rule_graph(drawn.stdout)}\n```"
    return {
        readme: replaced(readme.read_text(encoding="utf-8"), "rule graph", graph),
        reference: replaced(
            reference.read_text(encoding="utf-8"), "config table", config_table(schema, config)
        ),
    }


def main() -> int:
    """Rewrite or check; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    stale = 0
    for path, text in documents().items():
        if path.read_text(encoding="utf-8") != text:
            stale += 1
            print(f"{path.relative_to(ROOT)}: {'out of date' if check else 'rewritten'}")
            if not check:
                path.write_text(text, encoding="utf-8")
    return int(check and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
