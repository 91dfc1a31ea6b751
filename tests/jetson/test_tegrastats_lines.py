"""tegrastats lines of several generations."""

import pytest
from jetson import tegrastats

NANO = (
    "RAM 2448/3956MB (lfb 24x4MB) SWAP 0/1978MB (cached 0MB) IRAM 0/252kB(lfb 252kB) "
    "CPU [32%@1479,20%@1479,off,off] EMC_FREQ 23%@1600 GR3D_FREQ 99%@921 APE 25 PLL@31C CPU@34.5C "
    "PMIC@100C GPU@33C AO@39.5C thermal@34C POM_5V_IN 6543/6000 POM_5V_GPU 2300/2000 "
    "POM_5V_CPU 800/900"
)
XAVIER = (
    "RAM 4722/15823MB (lfb 2263x4MB) SWAP 0/7911MB (cached 0MB) CPU [5%@1190,0%@1190,3%@1190,off] "
    "EMC_FREQ 2%@2133 GR3D_FREQ 71%@1377 AO@36.5C GPU@36.5C Tdiode@39.25C PMIC@50C AUX@36C "
    "CPU@37C thermal@36.55C Tboard@35C GPU 310/310 CPU 310/310 SOC 932/932 CV 0/0 VDDRQ 155/155 "
    "SYS5V 1656/1656"
)
ORIN = (
    "03-21-2024 12:01:02 RAM 3331/30536MB (lfb 6x4MB) SWAP 0/15268MB (cached 0MB) "
    "CPU [1%@729,2%@729,3%@729,0%@729,off,off,off,off] EMC_FREQ 0%@2133 GR3D_FREQ 45%@[612,624] "
    "VIC_FREQ 115 APE 174 CV0@-256C CPU@48.312C Tboard@37C SOC2@44.687C Tdiode@38.5C SOC0@45C "
    "CV1@-256C GPU@43.7C tj@48.312C SOC1@44.5C CV2@-256C VDD_GPU_SOC 2401mW/2401mW "
    "VDD_CPU_CV 801mW/801mW VIN_SYS_5V0 3823mW/3823mW NC 0mW/0mW VDDQ_VDD2_1V8AO 504mW/504mW"
)


def test_nano():
    reading = tegrastats.parse_line(NANO)
    assert (reading.ram_mb, reading.ram_total_mb) == (2448, 3956)
    assert reading.cpu_percent == 26.0
    assert (reading.gpu_percent, reading.gpu_mhz) == (99, 921)
    assert reading.temperatures["GPU"] == 33.0
    assert "PMIC" not in reading.temperatures
    assert reading.power_mw == {"POM_5V_IN": 6543, "POM_5V_GPU": 2300, "POM_5V_CPU": 800}
    assert reading.board_power_mw == 6543


def test_xavier_adds_its_rails_up():
    reading = tegrastats.parse_line(XAVIER)
    assert reading.board_power_mw == 310 + 310 + 932 + 0 + 155 + 1656
    assert set(reading.power_mw) == {"GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"}
    assert reading.temperatures["thermal"] == 36.55


def test_orin():
    reading = tegrastats.parse_line(ORIN)
    assert (reading.gpu_percent, reading.gpu_mhz) == (45, 624)
    assert "CV0" not in reading.temperatures
    assert reading.temperatures["tj"] == 48.312
    assert reading.power_mw["VDDQ_VDD2_1V8AO"] == 504


def test_thor_has_a_rail_of_the_whole_board():
    rails = "VDD_GPU 2401mW/2401mW VDD_CPU_SOC_MSS 6510mW/6510mW VIN_SYS_5V0 6520mW/6520mW"
    reading = tegrastats.parse_line(f"RAM 3331/125772MB {rails} VIN 23000mW/23000mW")
    assert reading.board_power_mw == 23000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GR3D_FREQ 0%", (0, None)),
        ("GR3D_FREQ 45%@114", (45, 114)),
        ("RAM 1/2MB GR3D_FREQ 7%@[300]", (7, 300)),
    ],
)
def test_gpu_forms(line, expected):
    reading = tegrastats.parse_line(line)
    assert (reading.gpu_percent, reading.gpu_mhz) == expected


@pytest.mark.parametrize("line", ["", "tegrastats: permission denied", "POM_5V_IN x/y"])
def test_something_else(line):
    assert tegrastats.parse_line(line) is None


def test_summary():
    hot = NANO.replace("GPU@33C", "GPU@61C").replace("99%@921", "80%@640")
    idle = NANO.replace("99%@921", "0%@76").replace("6543/6000", "1543/1500")
    text = "\n".join((NANO, hot, "garbage", idle)) + "\n" + NANO[:30]
    summary = tegrastats.summarise(tegrastats.parse(text))
    assert summary["readings"] == 3
    assert summary["power_mw"] == {"mean": 4876.3, "highest": 6543}
    assert summary["gpu_mhz"] == {"lowest": 640, "highest": 921}
    assert summary["highest_temperature_c"]["GPU"] == 61.0
    assert summary["rails_mw"]["POM_5V_GPU"] == 2300


def test_nothing_to_summarise():
    assert tegrastats.summarise(tegrastats.parse("permission denied\n")) is None


def test_throttling():
    before = "cooling:cooling_device0:thermal-cpufreq-0=0\novercurrent:oc1_event_cnt=3\n"
    assert tegrastats.throttled(before, before) == []
    after = before.replace("=0", "=2").replace("=3", "=5")
    assert tegrastats.throttled(before, after) == [
        "cooling:cooling_device0:thermal-cpufreq-0",
        "overcurrent:oc1_event_cnt",
    ]
    assert tegrastats.throttled("", "overcurrent:oc1_event_cnt=0\nno number=x\n") == []
