"""The figures at the top of the page: what a reader wants to know first."""

from report.blocks import Fact
from report.errors import NotThereYet
from report.results import Results, run_label
from report.sections import data, deployment


def facts(results: Results) -> list[Fact]:
    """Data, chosen model, its accuracy, its size and its speed, each as far as it is known."""
    found = []
    for make in (_data, _accuracy, _size, _speed):
        try:
            found.append(make(results))
        except NotThereYet as missing:
            toolkit = results.config["toolkit"]
            told = f"not with {toolkit}" if missing.reason else f"{missing.target} tells"
            found.append(Fact(_LABELS[make], "–", told, "absent"))
    return found


def _data(results: Results) -> Fact:
    counts = data.read_counts(results)
    faces = counts.groupby("class", sort=False)["taken"].sum()
    detail = " · ".join(f"{faces.get(name, 0):,} {name}" for name in results.classes)
    images = sum(data.images_of(rows) for _, rows in counts.groupby("split"))
    failed = sum(data.not_converted(results, split) for split in results.splits)
    if failed:
        detail += f" · {failed:,} of the images not converted"
    return Fact("Data", f"{images:,} images", detail)


def _accuracy(results: Results) -> Fact:
    choice = results.choice
    drop = choice["unpruned_mAP"] - choice["mAP"]
    detail = f"unpruned {choice['unpruned_mAP']:.2f} %"
    if choice["run"] != "unpruned":
        detail += f", {abs(drop):.2f} points {'lost' if drop > 0 else 'won'}"
    return Fact(f"mAP, {run_label(choice['run'])}", f"{choice['mAP']:.2f} %", detail)


def _size(results: Results) -> Fact:
    choice = results.choice
    return Fact(
        "Size of the chosen model",
        f"{choice['parameters'] / 1e6:.2f} M",
        f"parameters, {100 * choice['share_of_parameters']:.1f} % of the unpruned model's",
    )


def _speed(results: Results) -> Fact:
    table = deployment.cases(deployment.read_benchmarks(results))
    table = table[table["is_present"]]
    if table.empty:
        raise results.absent("deployed/local/benchmark.json", "deploy_local", "verify")
    boards = table[table["device"] != "local"]
    best = (boards if len(boards) else table).sort_values("fps", ascending=False).iloc[0]
    how = f"{best['model']}, {best['engine'].upper()}, {best['precision'].upper()}"
    return Fact("Speed", f"{best['fps']:.1f} FPS", f"{deployment.place(best['device'])}: {how}")


_LABELS = {_data: "Data", _accuracy: "mAP", _size: "Size of the chosen model", _speed: "Speed"}
