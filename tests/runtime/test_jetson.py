"""Jetson boards from made-up trees of files in the layouts of JetPack 5 and 6, and from recorded output of commands."""

import pytest

from ttl_deploy.records import codec
from ttl_deploy.records.hardware import JetsonState
from ttl_deploy.runtime.jetson import read_jetson, warn_of_state
from ttl_deploy.runtime.jetson_clocks import parse_show

from .boards import SHOW, build_agx_orin, build_orin_nano, write_files


def answers(**known):
    """Return what stands in for running commands: the answer by the command's name, or nothing."""
    return lambda command: known.get(command[0], "")


def by_name(state):
    return {clock.name: clock for clock in state.clocks}


def test_jetpack_6_is_read_in_full(tmp_path):
    state = read_jetson(build_orin_nano(tmp_path, events=(0, 0, 7)), ask=answers())
    assert state.model == "NVIDIA Jetson Orin Nano Developer Kit Super"
    assert (state.l4t, state.jetpack, state.power_mode) == ("36.4.3", "6.2", "25W (1)")
    clocks = by_name(state)
    assert set(clocks) == {"cpu0-3", "cpu4-5", "gpu"}
    assert (clocks["gpu"].current_hz, clocks["gpu"].lowest_hz, clocks["gpu"].locked) == (918e6, 306e6, False)
    assert (clocks["cpu0-3"].highest_hz, clocks["cpu4-5"].current_hz) == (1.344e9, 1.0368e9)
    assert state.temperatures_c == {"cpu-thermal": 49.468, "gpu-thermal": 50.125, "tj-thermal": 50.531}
    assert state.throttle_events == {
        "oc1 (under-voltage)": 0,
        "oc2 (average over-current)": 0,
        "oc3 (instantaneous over-current)": 7,
    }
    assert state.held_back == ()
    assert state.rails_w["INA3221 VDD_IN"] == pytest.approx(4.984 * 1.856)
    assert len(state.rails_w) == 3


def test_jetpack_5_is_read_in_full(tmp_path):
    state = read_jetson(build_agx_orin(tmp_path, locked=True), ask=answers())
    assert (state.l4t, state.jetpack, state.power_mode) == ("35.3.1", "5", "mode 0")
    clocks = by_name(state)
    assert set(clocks) == {"cpu0-3", "gpu", "emc"}
    assert all(clock.locked for clock in state.clocks)
    assert clocks["emc"].lowest_hz == 204e6
    assert state.temperatures_c == {"CPU-therm": 42.593, "GPU-therm": 41.0}
    assert state.held_back == ("gpu-throttle-alert",)
    assert state.rails_w["INA3221 VDD_GPU_SOC"] == pytest.approx(3.57552)


def test_another_machine_is_no_jetson(tmp_path):
    assert read_jetson(tmp_path, ask=answers()) is None
    write_files(tmp_path / "proc/device-tree", model="Raspberry Pi 5")
    assert read_jetson(tmp_path, ask=answers()) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("NV Power Mode: MAXN_SUPER\n2\n", "MAXN_SUPER (2)"),
        ("NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_30W_ALL\n3\n", "MODE_30W_ALL (3)"),
        ("", "25W (1)"),
        ("NVPM ERROR: failed to read\n", "25W (1)"),
    ],
)
def test_the_power_mode_is_asked_for_before_it_is_looked_up(tmp_path, answer, expected):
    state = read_jetson(build_orin_nano(tmp_path), ask=answers(nvpmodel=answer))
    assert state.power_mode == expected


@pytest.mark.parametrize(("override", "locked"), [(0, False), (1, True)])
def test_what_sysfs_keeps_for_root_is_asked_of_jetson_clocks(tmp_path, override, locked):
    state = read_jetson(build_orin_nano(tmp_path), ask=answers(jetson_clocks=SHOW.format(override=override)))
    assert [clock.name for clock in state.clocks] == ["cpu0-3", "cpu4-5", "gpu", "emc"]
    assert by_name(state)["emc"].current_hz == 2.133e9
    assert by_name(state)["emc"].locked is locked


def test_the_output_of_jetson_clocks_is_read_in_its_units():
    clocks = {clock.name: clock for clock in parse_show(SHOW.format(override=0))}
    assert set(clocks) == {"cpu0", "gpu", "emc"}
    assert (clocks["cpu0"].lowest_hz, clocks["cpu0"].highest_hz, clocks["cpu0"].current_hz) == (
        729.6e6,
        1344e6,
        1190.4e6,
    )
    assert parse_show("gpu-gpc-0 MinFreq=1575000000 MaxFreq=1575000000 CurrentFreq=1575000000")[0].locked


def test_clocks_that_follow_the_load_are_a_warning_with_a_remedy(tmp_path):
    (warning,) = warn_of_state(read_jetson(build_orin_nano(tmp_path), ask=answers()))
    assert "not locked (cpu0-3 730 to 1344 MHz, cpu4-5 730 to 1344 MHz, gpu 306 to 918 MHz)" in warning
    assert "sudo jetson_clocks" in warning


def test_locked_clocks_are_none(tmp_path):
    assert warn_of_state(read_jetson(build_orin_nano(tmp_path, locked=True), ask=answers())) == ()


def test_clocks_that_cannot_be_read_are_not_taken_for_locked():
    (warning,) = warn_of_state(JetsonState(model="", l4t="", jetpack="", power_mode=""))
    assert "cannot be read" in warning


def test_throttling_is_counted_over_the_measurement(tmp_path):
    before = read_jetson(build_orin_nano(tmp_path / "before", locked=True, events=(0, 2, 40)), ask=answers())
    after = read_jetson(build_orin_nano(tmp_path / "after", locked=True, events=(0, 2, 43)), ask=answers())
    (warning,) = warn_of_state(after, before)
    assert "meanwhile (3 of oc3 (instantaneous over-current))" in warning
    assert warn_of_state(after, after) == ()
    (since_start,) = warn_of_state(after)
    assert "since the board started (2 of oc2 (average over-current), 43 of oc3" in since_start


def test_heat_that_holds_clocks_back_is_a_warning(tmp_path):
    (warning,) = warn_of_state(read_jetson(build_agx_orin(tmp_path, locked=True), ask=answers()))
    assert "gpu-throttle-alert" in warning
    assert "too hot" in warning


def test_a_state_can_be_stored_and_read(tmp_path):
    state = read_jetson(build_agx_orin(tmp_path), ask=answers())
    assert codec.from_builtins(JetsonState, codec.to_builtins(state)) == state
