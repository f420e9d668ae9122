"""Who else uses the machine: the system's own counters, from a made-up /proc and from this one."""

import os
import subprocess
import sys
import time

import pytest

from ttl_deploy.runtime.contention import Ticks, Usage, describe_contention, read_ticks, read_usage

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts waiting")


def write_proc(folder, *, stat, waits):
    (folder / "stat").write_text(stat)
    for number, wait in waits.items():
        task = folder / "self" / "task" / str(number)
        task.mkdir(parents=True, exist_ok=True)
        (task / "schedstat").write_text(f"999 {wait} 7\n")
    return folder


def test_waiting_is_added_up_over_the_threads(tmp_path):
    proc = write_proc(tmp_path, stat="cpu  1 2 3 4 5 6 7 8 9 9\n", waits={10: 1_000_000_000, 11: 500_000_000})
    assert read_usage(proc).waited_s == 1.5


def test_ticks_are_read_without_the_guests_that_are_counted_twice(tmp_path):
    (tmp_path / "stat").write_text("cpu  10 20 30 400 50 6 7 8 9 9\ncpu0 1 0 0 1 0 0 0 0 0 0\nintr 5\n")
    found = read_ticks(tmp_path / "stat")
    assert set(found) == {"cpu", "cpu0"}
    assert found["cpu"].total_s == pytest.approx(531 * TICK_S)
    assert found["cpu"].busy_s == pytest.approx(81 * TICK_S)
    assert found["cpu"].steal_s == pytest.approx(8 * TICK_S)


def test_a_system_without_counters_has_none(tmp_path):
    found = read_usage(tmp_path)
    assert (found.waited_s, found.machine) == (None, None)
    described = describe_contention(found, found, kernel_s=1.0)
    assert (described.waited_s, described.steal_share, described.others_share) == (None, None, None)


def test_shares_are_of_all_cores_and_without_our_own_time():
    before = Usage(at_s=0.0, cpu_s=0.0, waited_s=1.0, switches=2, machine=Ticks(total_s=100, busy_s=50, steal_s=5))
    after = Usage(at_s=10.0, cpu_s=8.0, waited_s=3.0, switches=9, machine=Ticks(total_s=120, busy_s=65, steal_s=7))
    found = describe_contention(before, after, kernel_s=0.5)
    assert (found.elapsed_s, found.cpu_s, found.waited_s, found.involuntary_switches) == (10.0, 8.0, 2.0, 7)
    assert found.steal_share == pytest.approx(2 / 20)
    assert found.others_share == pytest.approx((15 - 2 - 8) / 20)


@needs_linux
def test_two_busy_loops_on_our_core_are_seen_as_waiting():
    """The instrument's own check: a machine loaded on purpose must show."""
    (core,) = sorted(os.sched_getaffinity(0))[:1]
    loop = f"import os\nos.sched_setaffinity(0, {{{core}}})\nprint('ready', flush=True)\nwhile True: pass"
    loops = [subprocess.Popen([sys.executable, "-c", loop], stdout=subprocess.PIPE) for _ in range(2)]
    kept = os.sched_getaffinity(0)
    try:
        for one in loops:
            one.stdout.readline()
        os.sched_setaffinity(0, {core})
        before = read_usage()
        end = time.perf_counter() + 0.5
        while time.perf_counter() < end:
            pass
        found = describe_contention(before, read_usage(), kernel_s=1.0)
    finally:
        os.sched_setaffinity(0, kept)
        for one in loops:
            one.kill()
            one.communicate()
    assert found.waited_s / found.elapsed_s > 0.1  # the share from which on a row is inconclusive
