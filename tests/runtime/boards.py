"""Jetson boards as trees of files, laid out as JetPack 5 (L4T r35) and JetPack 6 (r36) lay them out.

Paths and names are those of NVIDIA's Jetson Linux Developer Guide and of boards' public listings: the GPU's clock is
`17000000.ga10b` before and `17000000.gpu` below `bus@0` since r36, zones are `CPU-therm` before and `cpu-thermal`
since, and both link their devices into `/sys/class`.
"""

from pathlib import Path

NVPMODEL_CONF = """\
< POWER_MODEL ID=0 NAME=15W >
CPU_ONLINE CORE_0 1
< POWER_MODEL ID=1 NAME=25W >
< POWER_MODEL ID=2 NAME=MAXN_SUPER >
< PM_CONFIG DEFAULT=1 >
"""
SHOW = """\
SOC family:tegra234  Machine:NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super
Online CPUs: 0-3
cpu0:  Online=1 Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=1190400 IdleStates: WFI=1 c7=1
cpu4:  Online=0 Governor=schedutil MinFreq=729600 MaxFreq=1344000 CurrentFreq=729600 IdleStates: WFI=1 c7=1
GPU MinFreq=306000000 MaxFreq=918000000 CurrentFreq=306000000
Active GPU TPCs: 4
EMC MinFreq=204000000 MaxFreq=3199000000 CurrentFreq=2133000000 FreqOverride={override}
FAN Dynamic Speed Control=nvfancontrol hwmon0_pwm1=69
NV Power Mode: 25W
"""


def write_files(folder: Path, **content: object) -> Path:
    """Write one file per name, each with one value and the end of a line."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        (folder / name).write_text(f"{value}\n")
    return folder


def link_into(group: Path, device: Path, name: str = "") -> None:
    """Link a device into its class, as the kernel does."""
    group.mkdir(parents=True, exist_ok=True)
    (group / (name or device.name)).symlink_to(device)


def build_orin_nano(root: Path, *, locked: bool = False, events: tuple[int, int, int] = (0, 0, 0)) -> Path:
    """Build an Orin Nano with JetPack 6.2 (L4T r36.4.3); returns the folder that stands for `/`."""
    sys = root / "sys"
    write_files(root / "proc/device-tree").joinpath("model").write_bytes(
        b"NVIDIA Jetson Orin Nano Developer Kit Super\0"
    )
    release = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64"
    write_files(root / "etc", nv_tegra_release=release).joinpath("nvpmodel.conf").write_text(NVPMODEL_CONF)
    packages = (
        "Package: nvidia-jetpack-dev\nVersion: 1\n\nPackage: nvidia-jetpack\nStatus: install ok\nVersion: 6.2+b77\n"
    )
    write_files(root / "var/lib/dpkg", status=packages)
    write_files(root / "var/lib/nvpmodel", status="pmode:0001")
    _write_cpus(sys, groups={0: "0 1 2 3", 4: "4 5"}, low=1344000 if locked else 729600, high=1344000)
    gpu = sys / "devices/platform/bus@0/17000000.gpu/devfreq/17000000.gpu"
    write_files(gpu, cur_freq=918000000, min_freq=918000000 if locked else 306000000, max_freq=918000000)
    video = write_files(sys / "devices/platform/bus@0/13e00000.host1x/15340000.vic", cur_freq=1, min_freq=1, max_freq=9)
    link_into(sys / "class/devfreq", gpu)
    link_into(sys / "class/devfreq", video)
    _write_rails(sys, "hwmon1", VDD_IN=(4984, 1856), VDD_CPU_GPU_CV=(4984, 248), VDD_SOC=(4976, 456))
    _write_events(sys, "hwmon3", events)
    zones = {"cpu-thermal": 49468, "gpu-thermal": 50125, "tj-thermal": 50531}
    _write_thermal(sys, zones, alerts={"pwm-fan": 3, "cpu-throttle-alert": 0, "gpu-throttle-alert": 0})
    (sys / "class/thermal/thermal_zone9").mkdir()
    write_files(sys / "class/thermal/thermal_zone9", type="cv0-thermal")  # switched off: its temp cannot be read
    return root


def build_agx_orin(root: Path, *, locked: bool = False) -> Path:
    """Build an AGX Orin with JetPack 5.1 (L4T r35.3.1), memory clock readable as for root."""
    sys = root / "sys"
    write_files(root / "proc/device-tree", model="Jetson AGX Orin\0")
    write_files(root / "etc", nv_tegra_release="# R35 (release), REVISION: 3.1, GCID: 32827747, BOARD: t186ref")
    write_files(root / "var/lib/nvpmodel", status="pmode:0000")
    _write_cpus(sys, groups={0: "0 1 2 3"}, low=2201600 if locked else 729600, high=2201600)
    gpu = sys / "devices/17000000.ga10b/devfreq/17000000.ga10b"
    write_files(gpu, cur_freq=306000000, min_freq=1300500000 if locked else 306000000, max_freq=1300500000)
    link_into(sys / "class/devfreq", gpu)
    memory = sys / "kernel/debug/bpmp/debug/clk/emc"
    write_files(memory, rate=3199000000, min_rate=204000000, max_rate=3199000000, mrq_rate_locked=int(locked))
    _write_rails(sys, "hwmon4", VDD_GPU_SOC=(19864, 180), VDD_CPU_CV=(19864, 40), VIN_SYS_5V0=(4984, 800))
    zones = {"CPU-therm": 42593, "GPU-therm": 41000, "CV0-therm": -256000}
    _write_thermal(sys, zones, alerts={"gpu-throttle-alert": 1})
    return root


def _write_cpus(sys: Path, *, groups: dict[int, str], low: int, high: int) -> None:
    for first, cores in groups.items():
        folder = sys / f"devices/system/cpu/cpufreq/policy{first}"
        write_files(
            folder, related_cpus=cores, scaling_min_freq=low, scaling_max_freq=high, scaling_cur_freq=(low + high) // 2
        )


def _write_rails(sys: Path, chip: str, **rails: tuple[int, int]) -> None:
    """Write an INA3221: its labelled rails, the shunts' voltages, and the sum of these, which are no rails."""
    folder = write_files(sys / "devices/c240000.i2c/i2c-1/1-0040/hwmon" / chip, name="ina3221", update_interval=430)
    for number, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        values = {f"in{number}_label": label, f"in{number}_input": millivolts, f"curr{number}_input": milliamperes}
        write_files(folder, **values, **{f"in{number + 3}_input": 2})
    write_files(folder, in7_label="sum of shunt voltages", in7_input=6, curr4_input=9999)
    link_into(sys / "class/hwmon", folder)


def _write_events(sys: Path, chip: str, events: tuple[int, int, int]) -> None:
    folder = write_files(sys / "devices/platform/soctherm-oc-event/hwmon" / chip, name="soctherm_oc")
    for number, count in enumerate(events, 1):
        write_files(folder, **{f"oc{number}_event_cnt": count, f"oc{number}_throt_en": 1})
    link_into(sys / "class/hwmon", folder)


def _write_thermal(sys: Path, zones: dict[str, int], *, alerts: dict[str, int]) -> None:
    thermal = sys / "class/thermal"
    for number, (kind, millidegrees) in enumerate(zones.items()):
        write_files(thermal / f"thermal_zone{number}", type=kind, temp=millidegrees)
    for number, (kind, state) in enumerate(alerts.items()):
        write_files(thermal / f"cooling_device{number}", type=kind, cur_state=state, max_state=4)
