"""Chapter on deployment: accuracy on the way to the device, speed on the desk and on devices."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jetson import perf
from jetson.table import PUBLISHED_FPS, PUBLISHED_MAP, SOURCE
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, NullLocator

from report.blocks import Block, Missing, Note, Section, Table, parts
from report.drawing import (
    PAPER,
    THEIRS,
    FigureFolder,
    canvas,
    legend_below,
    place_labels,
    ring,
)
from report.present import EARLIER, Present
from report.results import Results
from report.sections import export
from report.sections.accuracy import percent

ENGINE_COLOURS = {"gpu": "#3f86d8", "dla0": "#8b63d6", "dla1": "#c9559d"}
OTHER_ENGINE = "#2a9d9d"
MODEL_LINES = {"unpruned": (0, (3, 2)), "chosen": "-"}


def section(results: Results, folder: FigureFolder) -> Section:
    """What is known of the exported models, from export/, deepstream/ and deployed/."""
    benchmarks = read_benchmarks(results)
    blocks = parts(
        ("Accuracy through the DeepStream configs", lambda: export.parity_table(results)),
        ("What INT8 costs", lambda: export.int8_block(results)),
        ("Clustering on the device", lambda: export.clustering_tables(results)),
    )
    if any(one["cases"] for one in benchmarks):
        blocks += benchmark_blocks(benchmarks, results, folder)
    measured = {one["device"] for one in benchmarks}
    blocks += missing_devices(results, measured)
    return Section("deployment", "On the device", lead(benchmarks), blocks)


def missing_devices(results: Results, measured: set[str]) -> list[Missing | Note]:
    """A line for the desk and one for all boards that have not been measured."""
    commands = {d: c for d, c in expected_devices(results).items() if d not in measured}
    lines = []
    for title, names in (
        ("Speed on this computer", [d for d in commands if d == "local"]),
        ("Speed on the devices", [d for d in commands if d != "local"]),
    ):
        if names:
            absent = results.absent(f"deployed/{names[0]}/benchmark.json", stage="verify")
            makers = tuple(commands[name] for name in names)
            lines.append(
                Note(title, absent.reason)
                if absent.reason
                else Missing(title, absent.path, makers, len(names) - 1)
            )
    return lines


def expected_devices(results: Results) -> dict[str, str]:
    """The config's devices and the desk, with what the user types to measure them."""
    names = ["local", *results.config["deploy"].get("devices", {})]
    return {name: results.command(f"deploy_{name}") for name in names}


def read_benchmarks(results: Results) -> list[dict[str, Any]]:
    """benchmark.json of every device that has been measured, the desk first.

    Each case has `is_present` besides: whether it is of the model that the results hold now.
    """
    present = Present(results)
    found = sorted((results.root / "deployed").glob("*/benchmark.json"))
    documents = [
        results.document(
            path.relative_to(results.root).as_posix(), ("cases",), f"deploy_{path.parent.name}"
        )
        | {"device": path.parent.name}
        for path in found
    ]
    for one in documents:
        means = one.get("map_percent") or {}
        for case in one["cases"]:
            model = case["model"]
            case["is_present"] = present.is_of(model, case.get("model_sha256"), means.get(model))
    return sorted(documents, key=lambda one: (one["device"] != "local", one["device"]))


def cases(benchmarks: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a measured case: device, board, model, engine, precision, streams, fps and more.

    `is_present` tells the cases of the present models from those of earlier ones.
    """
    rows = []
    for one in benchmarks:
        for case in one["cases"]:
            fps = case["fps"]
            stats = case.get("tegrastats") or {}
            build = case.get("engine_build") or {}
            temperatures = stats.get("highest_temperature_c") or {}
            power = (stats.get("power_mw") or {}).get("mean")
            rows.append(
                {
                    "device": one["device"],
                    "board": (one.get("versions") or {}).get("board"),
                    "model": case["model"],
                    "engine": case["engine"],
                    "precision": case["precision"],
                    "streams": case["streams"],
                    "batch": case["batch"],
                    "fps": fps["total"],
                    "fps_lowest": fps["lowest"],
                    "fps_highest": fps["highest"],
                    "published_fps": case.get("published_fps"),
                    "mAP": (one.get("map_percent") or {}).get(case["model"]),
                    "power_w": power / 1000 if power else None,
                    "temperature_c": max(temperatures.values(), default=None),
                    "engine_build_s": build.get("build_s"),
                    "throttled_by": ", ".join(case.get("throttled_by") or []),
                    "measured_at": case.get("measured_at") or one.get("measured_at") or "",
                    "is_present": case["is_present"],
                }
            )
    columns = [
        *("device", "board", "model", "engine", "precision", "streams", "batch", "fps"),
        *("fps_lowest", "fps_highest", "published_fps", "mAP", "power_w", "temperature_c"),
        *("engine_build_s", "throttled_by", "measured_at", "is_present"),
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).astype({"is_present": bool})


def place(device: str) -> str:
    """Where a device is, in words."""
    return "on this computer" if device == "local" else f"on {device}"


def lead(benchmarks: Sequence[Mapping[str, Any]]) -> str:
    """The fastest case of each device, in words; of the present models alone."""
    table = cases(benchmarks)
    table = table[table["is_present"]]
    sentences = []
    for device, group in table.groupby("device", sort=False):
        best = group.loc[group["fps"].idxmax()]
        sentences.append(
            f"{best['fps']:.1f} frames per second {place(device)} "
            f"({best['model']}, {best['engine']}, {best['precision'].upper()})"
        )
    return f"Fastest: {'; '.join(sentences)}." if sentences else ""


def benchmark_blocks(
    benchmarks: Sequence[Mapping[str, Any]], results: Results, folder: FigureFolder
) -> list[Block]:
    """Table, trade-off against frames per second, and the measurements over time.

    The table has the cases of earlier models too, and says so; the figures leave them out.
    """
    every = cases(benchmarks)
    table = every[every["is_present"]].drop(columns="is_present")
    if table.empty:
        return [benchmark_table(every, results)]
    blocks: list[Block] = [
        folder.keep(
            "tradeoff_fps",
            "mAP against frames per second",
            "Filled: measured here, the chosen model with a ring. Hollow squares: published by "
            f"NVIDIA ({SOURCE}; Nano FP16, the others INT8; batch, clip and clocks unknown), with "
            "their own mAP.",
            tradeoff_fps(table, published_fps(table)),
            pd.concat(
                [table.assign(source="this run"), published_fps(table).assign(source=SOURCE)],
                ignore_index=True,
            ),
        )
    ]
    samples = read_samples(results, benchmarks)
    if len(samples):
        blocks.append(
            folder.keep(
                "perf",
                "Frames per second over the measurement",
                "The figures of deepstream-app's PERF lines, all streams added up.",
                perf_lines(samples),
                samples,
            )
        )
    blocks.append(benchmark_table(every, results))
    return blocks


def published_fps(table: pd.DataFrame) -> pd.DataFrame:
    """NVIDIA's figures for the boards and kinds of engine that were measured, or for all boards
    where none of them was: model, board, kind, fps and mAP."""
    rows = [
        (model, board, kind, fps, PUBLISHED_MAP[model])
        for model, figures in PUBLISHED_FPS.items()
        for (board, kind), fps in figures.items()
    ]
    theirs = pd.DataFrame(rows, columns=["model", "board", "engine", "fps", "mAP"])
    same = theirs[theirs["board"].isin(table["board"].dropna())]
    return same if len(same) else theirs


def tradeoff_fps(table: pd.DataFrame, theirs: pd.DataFrame) -> Drawing:
    """mAP over frames per second, a line from model to model for each device and engine.

    `table` has device, model, engine, fps and mAP, `theirs` board, model, engine, fps and mAP.
    """
    drawing, (axes,) = canvas(3.9)
    labels = []
    for (board, engine), group in theirs.groupby(["board", "engine"], sort=False):
        axes.plot(
            group["fps"], group["mAP"], "s", linestyle=":", color=THEIRS, markerfacecolor="none",
            markersize=6, linewidth=0.9, markeredgewidth=1.2, zorder=2,
        )  # fmt: skip
        for x, y in zip(group["fps"], group["mAP"], strict=True):
            is_fastest = x == group["fps"].max()
            labels.append((x, y, f"{board} {engine}" if is_fastest else "", {"color": THEIRS}))
    for (device, engine), group in table.dropna(subset=["mAP"]).groupby(
        ["device", "engine"], sort=False
    ):
        axes.plot(
            group["fps"], group["mAP"], "o-", color=ENGINE_COLOURS.get(engine, OTHER_ENGINE),
            markersize=8, markeredgecolor=PAPER, markeredgewidth=0.8, linewidth=1.2, zorder=3,
        )  # fmt: skip
        for _, point in group[group["model"] == "chosen"].iterrows():
            ring(axes, point["fps"], point["mAP"])
        labels += [
            (point["fps"], point["mAP"], f"{device} {engine}\n{point['model']}", {})
            for _, point in group.iterrows()
        ]
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.16, y=0.2)
    axes.set_xlabel("frames per second, all streams")
    axes.set_ylabel("mAP, percent")
    place_labels(axes, labels[::-1], 8)
    return drawing


def read_samples(results: Results, benchmarks: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """PERF figures after the warm-up, from the logs beside each benchmark.json.

    Of the present models alone. Columns device, case, seconds (since the end of the warm-up; PERF
    lines come in equal intervals) and fps (all streams added up).
    """
    rows = []
    for one in benchmarks:
        for case in one["cases"]:
            if not case["is_present"]:
                continue
            name = case["case"]
            found = sorted(
                (results.root / "deployed" / one["device"]).glob(f"**/{name}/measure.log")
            )
            if not found:
                continue
            log = found[0].read_bytes()
            start, end = measured_window(found[0].with_name("result"), len(log))
            totals = [sum(sample.now) for sample in perf.parse(perf.window(log, start, end))]
            interval = case["measured_s"] / max(len(totals), 1)
            rows += [
                (one["device"], name, round(interval * number, 2), round(total, 2))
                for number, total in enumerate(totals, 1)
            ]
    return pd.DataFrame(rows, columns=["device", "case", "seconds", "fps"])


def measured_window(result: Path, size: int) -> tuple[int, int]:
    """Sizes of the log at the end of the warm-up and of the measurement, bytes."""
    marks = {}
    if result.is_file():
        lines = (line.partition("=") for line in result.read_text(errors="replace").splitlines())
        marks = {name: value for name, _, value in lines}
    return int(marks.get("warm_log", 0)), int(marks.get("end_log", size))


def perf_lines(samples: pd.DataFrame) -> Drawing:
    """A panel for each device, a line for each case; `samples` as read_samples returns them."""
    devices = list(samples["device"].unique())
    drawing, rows = canvas(0.8 + 1.7 * len(devices), len(devices))
    for axes, device in zip(rows, devices, strict=True):
        for case, group in samples[samples["device"] == device].groupby("case", sort=False):
            model, _, engine = case.partition("-")
            axes.plot(
                group["seconds"], group["fps"], color=ENGINE_COLOURS.get(engine, OTHER_ENGINE),
                linestyle=MODEL_LINES.get(model, "-"), linewidth=1.6, label=case,
            )  # fmt: skip
        axes.set_ylim(0, None)
        axes.set_title(device, fontweight="bold")
    rows[-1].set_xlabel("seconds after the warm-up")
    legend_below(drawing, rows)
    return drawing


def benchmark_table(table: pd.DataFrame, results: Results) -> Table:
    """All measured cases, and when they were; those of an earlier model are marked."""
    rows = [
        (
            case["device"], case["model"], case["engine"].upper(), case["precision"].upper(),
            f"{case['streams']} / {case['batch']}", f"{case['fps']:.2f}",
            f"{case['fps_lowest']:.1f} – {case['fps_highest']:.1f}",
            percent(_some(case["published_fps"])), percent(_some(case["mAP"])),
            _unit(case["power_w"], "W"), _unit(case["temperature_c"], "°C"),
            _unit(case["engine_build_s"], "s"), case["throttled_by"] or "–",
            _when(case["measured_at"]) + ("" if case["is_present"] else f", {EARLIER}"),
        )
        for _, case in table.iterrows()
    ]  # fmt: skip
    earlier = dict.fromkeys(table.loc[~table["is_present"], "device"])
    commands = ", ".join(results.command(f"deploy_{device}") for device in earlier)
    return Table(
        "Measured with deepstream-app",
        (
            *("device", "model", "engine", "precision", "streams / batch", "FPS", "range"),
            *("NVIDIA's FPS", "mAP %", "power", "hottest", "engine build", "throttled by"),
            "measured",
        ),
        rows,
        "FPS: median after the warm-up, all streams. NVIDIA's FPS: published for the same board "
        "and kind of engine, not measured here."
        + (f" What is {EARLIER} is in no figure; measured anew by: {commands}." if earlier else ""),
    )


def _when(measured_at: str) -> str:
    """Day and minute of a time as benchmark.json has it."""
    return measured_at[:16].replace("T", " ") or "–"


def _some(value: float | None) -> float | None:
    return None if pd.isna(value) else value


def _unit(value: float | None, unit: str) -> str:
    return "–" if pd.isna(value) else f"{value:.1f} {unit}"
