"""What each stage makes, and what a target asks for."""


def stage_outputs():
    """What each stage makes, in the order of the stages."""
    models = [
        m
        for m in ("unpruned", "chosen")
        if m in {*EXPORTED, *config["deploy"]["models"]}
    ]
    return {
        "index": [
            *(f"<results>/index/{s}/{d}.csv" for s in SPLITS for d in datasets_of(s)),
            *(f"<results>/index/{s}/groups.csv" for s in SPLITS),
        ],
        "choose_faces": [f"<results>/selection/{s}.csv" for s in SPLITS],
        "kitti": [
            f"<results>/kitti/{s}/{d}.manifest.csv"
            for s in SPLITS
            for d in datasets_of(s)
        ],
        "check_labels": [
            f"<results>/check_labels/{s}/{d}.jpg"
            for s in SPLITS
            for d in datasets_of(s)
        ],
        "tfrecords": all_shards(),
        "train": [f"<results>/unpruned/weights/{MODEL}"],
        "prune": [f"<results>/pruned/{t}/{MODEL}" for t in THRESHOLDS],
        "retrain": [f"<results>/retrained/{t}/weights/{MODEL}" for t in THRESHOLDS],
        "evaluate": [
            f"<results>/{run}/evaluation/{s}/metrics.json"
            for run in RUNS
            for s in SUBSETS
        ],
        "choose_model": [
            "<results>/chosen/choice.json",
            "<results>/chosen/inference_spec.txt",
        ],
        "export": [
            f"<results>/export/{m}/model{EXPORTER.export_suffix}" for m in models
        ],
        "etlt": [
            f"<results>/export/{m}/model.etlt"
            for m in models
            if config["export"]["etlt"]
        ],
        "calibrate": [
            f"<results>/export/{m}/calibration.trt{version}.bin"
            for m in models
            for version in CALIBRATED
        ],
        "tune_clustering": [f"<results>/export/{m}/clustering.json" for m in models],
        "judge_int8": [f"<results>/export/{m}/int8.json" for m in models if CALIBRATED],
        "ds_config": cases("local", "config_infer_primary.txt"),
        "verify": cases("local", "parity.json"),
        "report": ["<results>/report.html"],
    }


def targets(stage):
    """One output of each stage up to the named one.

    The late file alone would not do: when a stage fails, Snakemake deletes its output, and a missing
    file in the middle is no reason to run again while the old late file is still there.
    """
    stages = stage_outputs()
    last = list(stages).index(stage)
    return [
        path
        for name in list(stages)[: last + 1]
        if name not in MISSING_STAGES
        for path in stages[name]
    ]


def device_results():
    """Sizes and times of the device results on disk: the report shows them, but makes none."""
    folder = Path(config["results_dir"], "deployed")
    found = sorted(folder.glob("*/benchmark.json"))
    return {str(path): path.stat().st_mtime_ns for path in found}
