"""The generated parts of the documentation are those that the code would write."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from configuration import ConfigError, check_config, merged
from documentation import config_table, replaced, rule_graph

MERMAID = """
flowchart TB
	id0[all]
	id1[index]
	id2[kitti]
	id3[train]
	id1 --> id2
	id1 --> id3
	id2 --> id3
	id3 --> id0
"""


def test_documents_are_up_to_date(repository):
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "scripts/documentation.py", "--check"],
        cwd=repository,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}run python scripts/documentation.py"


def test_settings_on_the_pages_are_valid(repository):
    config = yaml.safe_load((repository / "config/config.yaml").read_text(encoding="utf-8"))
    settings = [
        (page.name, yaml.safe_load(block))
        for page in (repository / "README.md", *sorted(repository.glob("docs/*.md")))
        for block in re.findall(
            r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S
        )
    ]
    assert {"README.md", "export.md", "toolkits.md"} <= {name for name, _ in settings}
    for name, overlay in settings:
        try:
            check_config(merged(config, overlay), repository / "config/config.schema.yaml")
        except ConfigError as error:
            pytest.fail(f"{name}: {error}")


def test_catalogue_finds_what_it_lists(repository):
    """The generic listing of the workflow catalogue wants these words, files and keys."""
    readme = (repository / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in readme and "workflow" in readme
    assert (repository / "Snakefile").is_file()
    assert all(path.suffix == ".smk" for path in (repository / "rules").iterdir())
    listing = yaml.safe_load((repository / ".snakemake-workflow-catalog.yml").read_text())
    assert listing == {"usage": {"software-stack-deployment": {"conda": True}, "report": True}}


def test_graph_leaves_out_edges_that_a_longer_way_implies():
    lines = rule_graph(MERMAID).splitlines()
    assert lines == ["flowchart TD", "    index --> kitti", "    kitti --> train"]


def test_table_names_nested_keys_with_their_values():
    schema = {
        "$defs": {"count": {"type": "integer", "minimum": 1}},
        "properties": {
            "train": {
                "type": "object",
                "properties": {"epochs": {"$ref": "#/$defs/count", "description": "passes"}},
            }
        },
    }
    table = config_table(schema, {"train": {"epochs": 3}})
    assert "| `train.epochs` | integer, at least 1 | `3` | passes |" in table


def test_table_has_all_keys_of_a_section_that_two_schemas_describe():
    schema = {
        "$defs": {
            "training": {
                "type": "object",
                "properties": {
                    "epochs": {"type": "integer", "description": "passes"},
                    "rate": {"type": "object", "properties": {"max": {"type": "number"}}},
                },
            }
        },
        "properties": {
            "train": {
                "description": "training",
                "allOf": [
                    {"$ref": "#/$defs/training"},
                    {"properties": {"rate": {"required": ["max"]}}},
                ],
            }
        },
    }
    lines = config_table(schema, {"train": {"epochs": 3, "rate": {"max": 0.5}}}).splitlines()[2:]
    assert lines == [
        "| `train` | section |  | training |",
        "| `train.epochs` | integer | `3` | passes |",
        "| `train.rate` | section |  |  |",
        "| `train.rate.max` | number | `0.5` |  |",
    ]


def test_document_without_marks_is_refused():
    with pytest.raises(ValueError, match="no <!-- rule graph -->"):
        replaced("text", "rule graph", "block")
