"""How calls are timed: enough of them, warm-up apart, streams together."""

import threading
import time

import pytest

from ttl_deploy.runtime.timing import TimingPlan, _Flow, are_steady, sample, sample_streams, time_calls, warm_up


def test_calls_are_timed_for_so_many_and_so_long_with_warmup_apart():
    plan = TimingPlan(seconds=0.05, calls=3, warmup_seconds=0.0, warmup_calls=2)
    calls = []

    def call():
        calls.append(time.perf_counter())
        time.sleep(0.01)

    timed = time_calls(call, plan, round_number=4, load_s=0.5)
    assert timed.round == 4
    assert len(timed.warmup_s) == 2
    assert len(timed.samples_s) == len(timed.cpu_samples_s) == len(calls) - 2
    assert len(timed.samples_s) >= 3
    assert all(sample >= 0.01 for sample in timed.samples_s)
    assert sum(timed.cpu_samples_s) < sum(timed.samples_s)  # sleeping costs no CPU time


def test_few_slow_calls_are_made_even_when_time_is_up():
    plan = TimingPlan(seconds=0.0, calls=4, warmup_seconds=0.0, warmup_calls=1)
    assert len(time_calls(lambda: None, plan, round_number=0, load_s=0.0).samples_s) == 4


def test_a_slow_call_stops_at_the_limit():
    plan = TimingPlan(seconds=1.0, calls=1000, limit_s=0.05)
    found = sample(lambda: time.sleep(0.02), plan)
    assert 1 <= len(found.wall_s) <= 4


def test_at_least_one_call_is_made_however_short_the_limit():
    assert len(sample(lambda: None, TimingPlan(seconds=0.0, calls=5, limit_s=0.0)).wall_s) == 1


@pytest.mark.parametrize(
    ("medians", "steady"),
    [([1.0, 1.0], False), ([1.0, 1.02, 1.01], True), ([9.0, 1.0, 1.0, 1.0], True), ([1.0, 1.0, 1.05], False)],
)
def test_calls_are_steady_when_the_last_three_blocks_agree(medians, steady):
    assert are_steady(medians) == steady


def test_a_warmup_that_never_settles_ends_and_says_so():
    slower = iter(range(1, 1000))
    plan = TimingPlan(seconds=0.0, warmup_seconds=0.0, warmup_calls=1, warmup_limit_s=0.3)
    times, settled = warm_up(lambda: time.sleep(next(slower) / 1000), plan)
    assert settled is False
    assert len(times) > 5


def test_a_warmup_without_a_limit_does_not_ask_whether_it_settled():
    assert warm_up(lambda: None, TimingPlan(seconds=0.0, warmup_seconds=0.0, warmup_calls=3))[1] is None


def test_streams_run_at_the_same_time_and_are_counted_together():
    together = threading.Barrier(2, timeout=5)  # neither stream gets past it alone
    met = threading.local()

    def meet_once():
        if not getattr(met, "done", False):
            together.wait()
            met.done = True

    found = sample_streams([meet_once, meet_once], TimingPlan(seconds=0.0, calls=2, limit_s=5.0))
    assert len(found.wall_s) == len(found.cpu_s) >= 2
    assert found.elapsed_s >= max(found.wall_s)


def test_an_error_in_one_stream_ends_all_and_is_raised():
    def fail():
        raise ArithmeticError("broken")

    with pytest.raises(ArithmeticError, match="broken"):
        sample_streams([fail, lambda: None], TimingPlan(seconds=30.0, calls=10**9))


def test_a_stream_that_asks_whether_it_is_enough_does_not_forget_that_another_ended_all(monkeypatch):
    asking, calls = threading.Event(), []

    def ask_while_the_other_fails(flow, spent_s):
        asking.set()
        deadline = time.monotonic() + 10
        while not flow._over and time.monotonic() < deadline:
            time.sleep(0.001)
        return False

    def fail():
        asking.wait(10)
        raise ArithmeticError("broken")

    def go_on():
        calls.append(None)
        if len(calls) > 5:
            raise AssertionError("nobody stopped it")

    monkeypatch.setattr(_Flow, "_is_enough", ask_while_the_other_fails)
    with pytest.raises(ArithmeticError, match="broken"):
        sample_streams([fail, go_on], TimingPlan(seconds=30.0, calls=10**9))
    assert len(calls) == 1
