"""Cores are chosen among those we may use, and pinned."""

import os
import sys

import pytest

from ttl_deploy.runtime import cores as cores_module
from ttl_deploy.runtime.contention import Ticks
from ttl_deploy.runtime.cores import choose_cores, limit_threads, pin

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux pins processes")


def pretend(monkeypatch, *, usable, busy):
    """Four cores, of which some are `busy` for so much of the look."""
    looks = iter([0.0, 1.0])

    def read():
        passed = next(looks)
        return {f"cpu{core}": Ticks(total_s=passed, busy_s=passed * share, steal_s=0.0) for core, share in busy.items()}

    monkeypatch.setattr(cores_module.os, "sched_getaffinity", lambda process: usable)
    monkeypatch.setattr(cores_module, "read_ticks", read)


def test_the_idlest_are_chosen(monkeypatch, tmp_path):
    pretend(monkeypatch, usable={0, 1, 2, 3}, busy={0: 0.9, 1: 0.1, 2: 0.5, 3: 0.2})
    assert choose_cores(2, look_s=0.0, cpus=tmp_path) == (1, 3)


def test_large_cores_come_before_idle_ones(monkeypatch, tmp_path):
    for core, speed in enumerate([1_000_000, 1_000_000, 2_500_000, 2_500_000]):
        (tmp_path / f"cpu{core}" / "cpufreq").mkdir(parents=True)
        (tmp_path / f"cpu{core}" / "cpufreq" / "cpuinfo_max_freq").write_text(f"{speed}\n")
    pretend(monkeypatch, usable={0, 1, 2, 3}, busy={0: 0.0, 1: 0.0, 2: 0.6, 3: 0.5})
    assert choose_cores(1, look_s=0.0, cpus=tmp_path) == (3,)


def test_cores_we_may_not_use_are_left_alone(monkeypatch, tmp_path):
    pretend(monkeypatch, usable={2}, busy={0: 0.0, 2: 1.0})
    assert choose_cores(1, look_s=0.0, cpus=tmp_path) == (2,)


def test_more_threads_than_cores_are_not_pinned(monkeypatch, tmp_path):
    pretend(monkeypatch, usable={0, 1}, busy={})
    assert choose_cores(3, look_s=0.0, cpus=tmp_path) == ()


def test_pinning_keeps_this_process_to_the_cores():
    before = os.sched_getaffinity(0)
    try:
        pin((min(before),))
        assert os.sched_getaffinity(0) == {min(before)}
        pin(())
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_libraries_are_told_their_threads():
    assert limit_threads(3)["OMP_NUM_THREADS"] == "3"
