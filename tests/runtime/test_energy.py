"""Energy counters, from made-up sysfs trees, a made-up NVML and recorded lines of tegrastats."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from ttl_deploy.records.benchmarks import Contention, Energy, Timing
from ttl_deploy.runtime.energy import Counter, doubt_energy, find_counters, idle_watts, sum_up_energy
from ttl_deploy.runtime.power_rails import parse_tegrastats
from ttl_deploy.runtime.power_sampling import PowerSum

from .boards import build_agx_orin, build_orin_nano

ORIN_NANO = (
    "04-27-2026 15:00:54 RAM 779/7620MB (lfb 2x4MB) SWAP 0/3810MB (cached 0MB) "
    "CPU [0%@1344,0%@1344,0%@1344,0%@1344,off,off] GR3D_FREQ 0%@[917] cpu@50.125C soc2@49.125C gpu@50.562C "
    "tj@50.562C VDD_IN 6626mW/6625mW VDD_CPU_GPU_CV 1228mW/1230mW VDD_SOC 2380mW/2380mW \n"
)
XAVIER_NX = (
    "RAM 2673/7765MB (lfb 118x4MB) SWAP 0/3883MB (cached 0MB) CPU [12%@1190,8%@1190,off,off] EMC_FREQ 7% "
    "GR3D_FREQ 33% AO@35C GPU@33C PMIC@100C thermal@33.9C VDD_IN 3902/3611 VDD_CPU_GPU_CV 1331/1180 VDD_SOC 997/941"
)


@pytest.fixture(autouse=True)
def _no_nvml(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)


def write_rapl(root, *, energies):
    for zone, (name, energy) in energies.items():
        folder = root / "class" / "powercap" / zone
        folder.mkdir(parents=True)
        (folder / "name").write_text(f"{name}\n")
        (folder / "energy_uj").write_text(f"{energy}\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")
    return root


def write_rails(root, *, chip="ina3221"):
    folder = root / "class" / "hwmon" / "hwmon3"
    folder.mkdir(parents=True)
    values = {"name": chip, "in1_label": "VDD_GPU_SOC", "in1_input": 5000, "curr1_input": 2000}
    for name, value in {**values, "in2_label": "unused", "in2_input": 5000}.items():
        (folder / name).write_text(f"{value}\n")
    return root


def test_packages_are_counted_once_and_not_their_parts(tmp_path):
    zones = {
        "intel-rapl:0": ("package-0", 5_000_000),
        "intel-rapl:0:0": ("core", 4_000_000),
        "intel-rapl:1": ("psys", 9_000_000),
    }
    found = find_counters(write_rapl(tmp_path, energies=zones))
    assert [counter.name for counter in found.counters] == ["RAPL package-0"]
    assert found.counters[0].read_j() == 5.0
    assert found.note == ""


def test_what_was_spent_is_the_difference_also_over_the_end_of_the_range(tmp_path):
    root = write_rapl(tmp_path, energies={"intel-rapl:0": ("package-0", 999_000_000)})
    found = find_counters(root)
    with found.watch() as spent:
        (root / "class" / "powercap" / "intel-rapl:0" / "energy_uj").write_text("2000000\n")
    assert spent.joules == {"RAPL package-0": pytest.approx(3.0)}
    assert spent.seconds > 0


def test_a_counter_without_a_range_may_not_wrap():
    assert Counter("x", lambda: 0.0).difference_j(1.0, 4.0) == 3.0


def test_a_counter_for_root_only_is_a_reason(tmp_path):
    root = write_rapl(tmp_path, energies={"intel-rapl:0": ("package-0", 1)})
    (root / "class" / "powercap" / "intel-rapl:0" / "energy_uj").unlink()
    (root / "class" / "powercap" / "intel-rapl:0" / "energy_uj").mkdir()  # refuses to be read, even by root
    found = find_counters(root)
    assert found.counters == ()
    assert "the RAPL counter may be read by root only" in found.note


def test_the_rails_of_a_jetson_are_power_times_time(tmp_path):
    found = find_counters(write_rails(tmp_path))
    assert [rail.name for rail in found.rails] == ["INA3221 VDD_GPU_SOC"]
    watts = idle_watts(found, seconds=0.25)
    assert watts == {"INA3221 VDD_GPU_SOC": pytest.approx(10.0, rel=0.2)}


def test_other_sensors_are_no_rails(tmp_path):
    assert find_counters(write_rails(tmp_path, chip="coretemp")).rails == ()


def test_a_machine_without_counters_says_why(tmp_path):
    found = find_counters(tmp_path)
    assert found.note == (
        "no energy: no RAPL counter in /sys/class/powercap; no NVML (nvidia-ml-py is not installed); "
        "no INA3221 rail in /sys/class/hwmon"
    )
    assert idle_watts(found, seconds=10.0) == {}


def test_a_gpu_is_read_through_nvml(tmp_path, monkeypatch):
    readings = iter([1000, 5000, 7500])
    nvml = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(readings),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = find_counters(tmp_path)
    with found.watch() as spent:
        pass
    assert spent.joules == {"NVML GPU 0": 2.5}


def test_a_driver_that_refuses_is_a_reason(tmp_path, monkeypatch):
    def refuse():
        raise RuntimeError("Driver Not Loaded")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(NVMLError=RuntimeError, nvmlInit=refuse))
    assert "NVML cannot be read (Driver Not Loaded)" in find_counters(tmp_path).note


@pytest.mark.parametrize(
    ("build", "rail", "watts"),
    [(build_orin_nano, "INA3221 VDD_IN", 4.984 * 1.856), (build_agx_orin, "INA3221 VDD_GPU_SOC", 19.864 * 0.18)],
    ids=["JetPack 6", "JetPack 5"],
)
def test_the_rails_of_real_layouts_are_sampled(tmp_path, build, rail, watts):
    found = find_counters(build(tmp_path) / "sys")
    with found.watch() as spent:
        pass
    assert len(found.rails) == 3
    assert spent.watts()[rail] == pytest.approx(watts)
    assert set(spent.readings) == set(spent.joules)
    assert spent.readings[rail] >= 2


def test_power_is_added_up_by_the_trapezoidal_rule_up_to_both_ends():
    times, watts = [1.5, 2.0, 4.0, 4.25], [10.0, 20.0, 5.0, 7.0]
    added = PowerSum(began_s=1.0)
    for at_s, now_w in zip(times, watts, strict=True):
        added.add(at_s, {"a": now_w})
    added.end(5.0)
    assert added.joules["a"] == pytest.approx(np.trapezoid([10.0, *watts, 7.0], [1.0, *times, 5.0]))
    assert added.readings["a"] == 4


def test_a_rail_that_misses_a_reading_is_bridged():
    added = PowerSum(began_s=0.0)
    added.add(1.0, {"a": 2.0, "b": 1.0})
    added.add(2.0, {"b": 1.0})
    added.add(3.0, {"a": 4.0, "b": 1.0})
    added.end(3.0)
    assert added.joules == {"a": pytest.approx(2.0 + 6.0), "b": pytest.approx(3.0)}


def test_a_chip_that_does_not_answer_ends_nothing(tmp_path):
    found = find_counters(write_rails(tmp_path))
    (tmp_path / "class" / "hwmon" / "hwmon3" / "curr1_input").write_text("\n")
    with found.watch() as spent:
        pass
    assert spent.joules == {}


@pytest.mark.parametrize(
    ("line", "watts"),
    [
        (ORIN_NANO, {"VDD_IN": 6.626, "VDD_CPU_GPU_CV": 1.228, "VDD_SOC": 2.38}),
        (XAVIER_NX, {"VDD_IN": 3.902, "VDD_CPU_GPU_CV": 1.331, "VDD_SOC": 0.997}),
        ("", {}),
    ],
    ids=["r36", "r32", "nothing"],
)
def test_recorded_lines_of_tegrastats_are_read(line, watts):
    assert parse_tegrastats(line) == {f"tegrastats {name}": value for name, value in watts.items()}


def test_tegrastats_stands_in_where_no_chip_can_be_read(tmp_path):
    program = tmp_path / "tegrastats"
    program.write_text(f"#!/bin/sh\nwhile true; do printf '%s' '{ORIN_NANO}'; sleep 0.02; done\n")
    program.chmod(0o755)
    found = find_counters(tmp_path, find_command={"tegrastats": str(program)}.get)
    assert found.note == ""
    assert idle_watts(found, seconds=0.3)["tegrastats VDD_IN"] == pytest.approx(6.626)


def timing(*, calls, energy_j, **changes):
    seconds = tuple([0.01] * calls)
    return Timing(
        round=0, load_s=0.0, warmup_s=(), samples_s=seconds, cpu_samples_s=seconds, energy_j=energy_j, **changes
    )


def test_energy_per_image_is_that_of_all_processes_raw_and_above_idle():
    rail = "INA3221 VDD_IN"
    first = timing(calls=100, energy_j={rail: 12.0}, energy_s=1.5, energy_readings={rail: 16})
    second = timing(calls=300, energy_j={rail: 40.0}, energy_s=4.5, energy_readings={rail: 44})
    silent = timing(calls=1000, energy_j={})
    (energy,) = sum_up_energy([first, second, silent], batch=2, idle_w={rail: 3.0, "NVML GPU 0": 20.0})
    assert energy.per_image_j == pytest.approx(52 / 800)
    assert energy.per_image_above_idle_j == pytest.approx((52 - 3 * 6) / 800)
    assert (energy.images, energy.seconds, energy.readings) == (800, 6.0, 60)
    assert energy.rate_hz == pytest.approx(10.0)


def test_reports_of_older_versions_have_the_samples_time():
    contention = Contention(
        elapsed_s=2.0, cpu_s=2, waited_s=0, involuntary_switches=0, steal_share=0, others_share=0, kernel_s=1
    )
    old = timing(calls=10, energy_j={"RAPL package-0": 30.0}, contention=contention)
    (energy,) = sum_up_energy([old], batch=1, idle_w={"RAPL package-0": 5.0})
    assert energy.per_image_above_idle_j == pytest.approx(2.0)
    assert energy.rate_hz is None


def energy_of(*, seconds, above_idle):
    return Energy(
        counter="x", per_image_j=1, per_image_above_idle_j=above_idle, images=1, seconds=seconds, idle_w=1, readings=9
    )


@pytest.mark.parametrize(
    ("seconds", "above_idle", "words"),
    [(31.0, 0.5, []), (3.0, 0.5, ["over 3.0 s only"]), (31.0, -0.1, ["less than the idle machine"])],
)
def test_doubtful_energy_is_said(seconds, above_idle, words):
    doubts = doubt_energy([energy_of(seconds=seconds, above_idle=above_idle)])
    assert len(doubts) == len(words)
    assert all(word in doubt for word, doubt in zip(words, doubts, strict=True))
    assert doubt_energy([]) == ()
