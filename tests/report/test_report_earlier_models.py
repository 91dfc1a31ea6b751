"""Measurements outlive a training: the page keeps those of an earlier model apart."""

import hashlib
import json

import pandas as pd
from report.results import Results
from report.sections import deployment, export
from report.summary import facts


def results(run):
    return Results(run.root, run.config)


def block(section, title):
    return next(b for b in section.blocks if b.title.startswith(title))


def rewritten(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_what_was_measured_of_an_earlier_model_is_marked_and_in_no_figure(run, folder):
    """A new training changes the chosen model; `all` measures neither desk nor board again."""
    digest = hashlib.sha256(b"new").hexdigest()
    (run.root / "export/chosen/model.onnx").write_bytes(b"new")
    # The desk was measured again; the board of today's unpruned model and of a former chosen one.
    local = run.root / "deployed/local/benchmark.json"
    rewritten(local, lambda found: [c.update(model_sha256=digest) for c in found["cases"]])
    board = run.root / "deployed/xavier_nx/benchmark.json"
    rewritten(board, lambda found: found["map_percent"].update(chosen=12.5))
    rewritten(
        run.root / "deepstream/nano/chosen-gpu/parity.json",
        lambda found: found["toolkit_own_clustering"].update(mAP=12.5),
    )

    section = deployment.section(results(run), folder)
    assert "on xavier_nx (unpruned, gpu, FP16)" in section.lead
    assert "on this computer (chosen, gpu, FP32)" in section.lead
    speed = facts(results(run))[-1]
    assert speed.detail == "on xavier_nx: unpruned, GPU, FP16"

    table = block(section, "Measured with deepstream-app")
    told = {(row[0], row[1]): row[-1] for row in table.rows}
    assert told == {
        ("local", "unpruned"): "2026-01-05 10:00",
        ("local", "chosen"): "2026-01-05 10:00",
        ("xavier_nx", "unpruned"): "2026-01-05 10:00",
        ("xavier_nx", "chosen"): "2026-01-05 10:00, of an earlier model",
    }
    assert "measured anew by: snakemake deploy_xavier_nx." in table.caption
    drawn = pd.read_csv(folder.path / "tradeoff_fps.csv")
    ours = drawn[drawn["source"] == "this run"]
    assert len(ours) == 4
    assert "chosen" not in set(ours.loc[ours["device"] == "xavier_nx", "model"])
    perf = pd.read_csv(folder.path / "perf.csv")
    assert "chosen-gpu" not in set(perf.loc[perf["device"] == "xavier_nx", "case"])

    rows = export.parity_table(results(run)).rows
    assert [(row[0], row[-1]) for row in rows] == [
        ("unpruned", "local gpu, nano gpu, xavier_nx dla0, xavier_nx gpu"),
        ("chosen", "local gpu, xavier_nx dla0, xavier_nx gpu"),
        ("chosen", "nano gpu (of an earlier model)"),
    ]


def test_a_digest_tells_models_apart_that_have_the_same_accuracy(run, folder):
    (run.root / "export/chosen/model.onnx").write_bytes(b"new")
    (run.root / "export/unpruned/model.etlt").write_bytes(b"encrypted")
    digests = {
        "chosen": hashlib.sha256(b"old").hexdigest(),
        "unpruned": hashlib.sha256(b"encrypted").hexdigest(),
    }
    for path in run.root.glob("deployed/*/benchmark.json"):
        rewritten(
            path,
            lambda found: [c.update(model_sha256=digests[c["model"]]) for c in found["cases"]],
        )
    table = deployment.cases(deployment.read_benchmarks(results(run)))
    assert set(table.loc[table["is_present"], "model"]) == {"unpruned"}
    assert set(table.loc[~table["is_present"], "model"]) == {"chosen"}


def test_nothing_measured_of_the_present_models(run, folder):
    for path in run.root.glob("deployed/*/benchmark.json"):
        rewritten(path, lambda found: found.update(map_percent={"unpruned": 1.0, "chosen": 2.0}))
    section = deployment.section(results(run), folder)
    assert section.lead == ""
    assert not [b for b in section.blocks if b.kind == "figure"]
    table = block(section, "Measured with deepstream-app")
    assert len(table.rows) == 6
    assert all(row[-1].endswith("of an earlier model") for row in table.rows)
    speed = facts(results(run))[-1]
    assert (speed.value, speed.detail) == ("–", "snakemake deploy_local tells")
