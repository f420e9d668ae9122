"""Energy counters, from made-up sysfs trees and a made-up NVML."""

import sys
from types import SimpleNamespace

import pytest

from ttl_deploy.runtime.energy import Counter, find_counters, idle_watts


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
