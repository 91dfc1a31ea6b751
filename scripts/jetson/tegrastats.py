"""What tegrastats prints, whichever L4T wrote it: memory, loads, temperatures, power."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_CPU = re.compile(r"\bCPU \[([^\]]*)\]")
_LOAD = re.compile(r"(\d+)%")
# `GR3D_FREQ 45%`, `45%@921`, and on Orin `45%@[624,624]` with a figure a cluster.
_GPU = re.compile(r"\bGR3D_FREQ (\d+)%(?:@\[?(\d+(?:,\d+)*)\]?)?")
_TEMPERATURE = re.compile(r"(?<![\w%])([A-Za-z][\w.-]*)@(-?\d+(?:\.\d+)?)C\b")
# `POM_5V_IN 3456/3456` and `VDD_IN 4900mW/4900mW`; RAM and SWAP end in MB, IRAM in kB.
_RAIL = re.compile(r"(?<!\S)([A-Za-z][\w/]*) (\d+)(?:mW)?/(\d+)(?:mW)?(?=\s|$)")
# What the whole board draws, where there is a rail for it (Thor: VIN); other boards' rails add up
# to it.
INPUT_RAILS = ("POM_5V_IN", "VDD_IN", "VIN")
# A sensor that is switched off reads -256; this one reads 100 whatever happens.
_LOWEST_TEMPERATURE = -100.0
_NO_SENSORS = {"PMIC"}


@dataclass
class Reading:
    """One line: MB, percent, MHz, degrees Celsius by zone, milliwatts by rail."""

    ram_mb: int | None = None
    ram_total_mb: int | None = None
    cpu_percent: float | None = None
    gpu_percent: int | None = None
    gpu_mhz: int | None = None
    temperatures: dict[str, float] = field(default_factory=dict)
    power_mw: dict[str, int] = field(default_factory=dict)

    @property
    def board_power_mw(self) -> int | None:
        """What the board draws: its input rail, or the sum of the rails where it has none."""
        for rail in INPUT_RAILS:
            if rail in self.power_mw:
                return self.power_mw[rail]
        return sum(self.power_mw.values()) if self.power_mw else None


def parse_line(line: str) -> Reading | None:
    """Read one line; what it lacks stays None, and None stands for a line of something else."""
    reading = Reading()
    if ram := _RAM.search(line):
        reading.ram_mb, reading.ram_total_mb = int(ram[1]), int(ram[2])
    if cpu := _CPU.search(line):
        loads = [int(load) for load in _LOAD.findall(cpu[1])]
        reading.cpu_percent = round(fmean(loads), 1) if loads else None
    if gpu := _GPU.search(line):
        reading.gpu_percent = int(gpu[1])
        reading.gpu_mhz = max(map(int, gpu[2].split(","))) if gpu[2] else None
    for zone, degrees in _TEMPERATURE.findall(line):
        if zone not in _NO_SENSORS and float(degrees) > _LOWEST_TEMPERATURE:
            reading.temperatures[zone] = float(degrees)
    for rail, now, _average in _RAIL.findall(line):
        reading.power_mw[rail] = int(now)
    return reading if reading != Reading() else None


def parse(text: str) -> list[Reading]:
    """Read all lines of a log but a last one that is cut short."""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return [reading for line in lines if (reading := parse_line(line)) is not None]


def summarise(readings: list[Reading]) -> dict[str, Any] | None:
    """Return means and maxima over a measurement, None without readings.

    `gpu_mhz` tells the lowest and the highest clock under load: they differ where clocks are not
    fixed by jetson_clocks, and fall in the course of a measurement that is throttled.
    """
    if not readings:
        return None
    loaded = [r.gpu_mhz for r in readings if r.gpu_mhz is not None and r.gpu_percent]
    temperatures: dict[str, float] = {}
    rails: dict[str, list[int]] = defaultdict(list)
    for reading in readings:
        for zone, degrees in reading.temperatures.items():
            temperatures[zone] = max(degrees, temperatures.get(zone, degrees))
        for rail, milliwatts in reading.power_mw.items():
            rails[rail].append(milliwatts)
    return {
        "readings": len(readings),
        "power_mw": _range(reading.board_power_mw for reading in readings),
        "rails_mw": {rail: round(fmean(values)) for rail, values in rails.items()},
        "gpu_percent": _range(reading.gpu_percent for reading in readings),
        "gpu_mhz": {"lowest": min(loaded), "highest": max(loaded)} if loaded else None,
        "cpu_percent": _range(reading.cpu_percent for reading in readings),
        "ram_mb": _range(reading.ram_mb for reading in readings),
        "highest_temperature_c": temperatures,
    }


def _range(values: Iterable[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return {"mean": round(fmean(known), 1), "highest": max(known)} if known else None


def throttled(before: str, after: str) -> list[str]:
    """Name what limited the board between two snapshots of `name=count` lines.

    A cooling device counts while its state is above 0 at the end or rose, an over-current alarm
    when its count rose.
    """
    first, last = _counts(before), _counts(after)
    return sorted(
        name
        for name, count in last.items()
        if count > first.get(name, 0) or (name.startswith("cooling:") and count > 0)
    )


def _counts(text: str) -> dict[str, int]:
    pairs = (line.rsplit("=", 1) for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
