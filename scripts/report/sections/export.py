"""Tables on what export, clustering and the DeepStream configs do to a model's accuracy."""

from report.blocks import Note, Table
from report.present import EARLIER, Present
from report.results import Results
from report.sections.accuracy import percent, signed

PARITY = ("toolkit", "deepstream", "drop", "agreement", "passed")
CLUSTERING = ("classes", "fold0")
INT8 = ("fp32", "int8", "drop", "passed")
SETTINGS = {
    "nvinfer_defaults": "nvinfer's defaults",
    "tuned": "NMS as tuned, in the configs",
    "tuned_dbscan": "DBSCAN as tuned",
}


def parity_table(results: Results) -> Table:
    """mAP of each model by the toolkit and through the rendered configs; cases that came out the
    same share a row. Those of an earlier model are marked and stand last."""
    present = Present(results)
    files = sorted((results.root / "deepstream").glob("*/*/parity.json"))
    if not files:
        raise results.absent("deepstream/…/parity.json", stage="verify")
    rows: dict[tuple[bool, tuple[str, ...]], list[str]] = {}
    for file in files:
        parity = results.document(file.relative_to(results.root).as_posix(), PARITY)
        model, _, engine = file.parent.name.partition("-")
        toolkit, desk = parity["toolkit"], parity["deepstream"]
        own = parity.get("toolkit_own_clustering") or {}
        key = (
            model,
            percent(own.get("mAP")),
            percent(toolkit["mAP"]),
            percent(desk["mAP"]),
            *(percent(desk["average_precision"].get(name)) for name in results.classes),
            signed(-parity["drop"]),
            f"{100 * parity['agreement']['share_of_images']:.1f}",
            "yes" if parity["passed"] else "no",
        )
        is_present = present.is_of(model, parity.get("model_sha256"), own.get("mAP"))
        rows.setdefault((is_present, key), []).append(f"{file.parents[1].name} {engine}")
    limit = results.config["export"]["max_parity_drop"]
    return Table(
        "The same model in the toolkit and in DeepStream",
        (
            *("model", "toolkit, DBSCAN", "toolkit, NMS", "DeepStream configs"),
            *results.classes,
            *("change", "% of images agree", "passed", "rendered for"),
        ),
        [
            (*key, ", ".join(devices) + ("" if is_present else f" ({EARLIER})"))
            for (is_present, key), devices in sorted(
                rows.items(), key=lambda row: (not row[0][0], row[0][1][0] != "unpruned")
            )
        ],
        "mAP on fold 0, percent. DeepStream configs: the files that go to the device, run "
        "here in FP32 on the exported model with nvinfer's NMS; the toolkit with the same "
        f"clustering. At most export.max_parity_drop = {limit:g} points may be lost.",
    )


def asking_for_int8(results: Results) -> list[str]:
    """The devices that the config gives INT8."""
    devices = results.config["deploy"].get("devices", {})
    return [name for name, device in devices.items() if device.get("precision") == "int8"]


def int8_block(results: Results) -> Table | Note:
    """What INT8 costs each model, and what the devices that ask for it get; that none asks."""
    absent = results.absent("export/…/int8.json", stage="judge_int8")
    if not asking_for_int8(results) and not absent.reason:
        return Note(
            "What INT8 costs",
            "Not measured: no device in deploy.devices has precision: int8.",
        )
    files = sorted((results.root / "export").glob("*/int8.json"), reverse=True)
    if not files:
        raise absent
    rows = []
    for file in files:
        found = results.document(file.relative_to(results.root).as_posix(), INT8)
        fp32, int8 = found["fp32"], found["int8"]
        rows.append(
            (
                file.parent.name,
                percent(fp32["mAP"]),
                percent(int8["mAP"]),
                *(percent(int8["average_precision"].get(name)) for name in results.classes),
                signed(-found["drop"]),
                "INT8" if found["passed"] else "FP16",
                ", ".join(asking_for_int8(results)),
            )
        )
    limit = results.config["export"]["max_int8_drop"]
    return Table(
        "What INT8 costs",
        ("model", "FP32", "INT8", *results.classes, "change", "deployed as", "on"),
        rows,
        "mAP on fold 0 through the DeepStream configs, percent, and average precision in INT8, "
        "simulated with the scales of the calibration cache. A model that loses more than "
        f"export.max_int8_drop = {limit:g} points goes to the devices in FP16.",
    )


def clustering_tables(results: Results) -> list[Table]:
    """What nvinfer's clustering makes of the same network outputs, and the numbers found for it.

    Raises NotThereYet where no model has been tuned.
    """
    files = sorted((results.root / "export").glob("*/clustering.json"), reverse=True)
    if not files:
        raise results.absent("export/…/clustering.json", stage="tune_clustering")
    effects: list[list[str]] = []
    numbers: list[list[str]] = []
    keys: list[str] = []
    marked = []
    for file in files:
        model = file.parent.name
        found = results.document(file.relative_to(results.root).as_posix(), CLUSTERING)
        for setting, title in SETTINGS.items():
            if setting == "tuned":
                marked.append(len(effects))
            values = found["fold0"][setting]
            effects.append(
                [
                    model,
                    title,
                    percent(values["mAP"]),
                    *(percent(values["average_precision"].get(n)) for n in results.classes),
                    percent(found["val"][setting]["mAP"]) if "val" in found else "–",
                ]
            )
        for name, values in found["classes"].items():
            keys = keys or list(values)
            tuned = found["fold0"]["tuned"]
            shares = (100 * tuned[share][name] for share in ("precision", "recall"))
            numbers.append(
                [model, name, *(f"{values[key]:g}" for key in keys), *map(percent, shares)]
            )
    return [
        Table(
            "The same network outputs under nvinfer's clustering",
            ("model", "clustering", "mAP %", *results.classes, "mAP %, val split"),
            effects,
            "On fold 0 and, last, on the val split, which the numbers were not tuned on.",
            marked,
        ),
        Table(
            "Clustering in the DeepStream configs",
            ("model", "class", *keys, "precision %", "recall %"),
            numbers,
            "Precision and recall of all boxes that a device shows, on fold 0.",
        ),
    ]
