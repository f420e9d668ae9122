"""The verdict on a measurement: what was unsteady, and who disturbed it."""

from dataclasses import replace

import pytest

from ttl_deploy.records.benchmarks import Contention, Timing
from ttl_deploy.runtime.steadiness import judge, waited_share


def timing(samples, number=0):
    return Timing(round=number, load_s=0.1, warmup_s=(9.0,), samples_s=tuple(samples), cpu_samples_s=tuple(samples))


STEADY = [1.0, 1.01, 0.99, 1.0]


@pytest.mark.parametrize(
    ("rounds", "after", "words"),
    [
        ([STEADY, STEADY], 1.0, None),
        ([STEADY, STEADY], 1.04, None),
        ([STEADY, STEADY], 1.06, ("noisy", "speed changed by 6%")),
        ([STEADY, STEADY], 0.9, ("noisy", "speed changed by 11%")),
        ([STEADY, [1.07, 1.07, 1.08]], 1.0, ("noisy", "rounds differ by 7%")),
        ([[1.0, 1.0, 1.0, 2.0], STEADY], 1.0, ("noisy", "calls vary by")),
        ([STEADY, [1.5, 1.5, 1.51]], 1.0, ("inconclusive", "rounds differ by 40%")),
        ([STEADY, STEADY], 1.4, ("inconclusive", "speed changed by 40%")),
        ([STEADY], 1.0, ("noisy", "one round only")),
    ],
)
def test_the_verdict_names_what_was_unsteady(rounds, after, words):
    timings = [timing(samples, number) for number, samples in enumerate(rounds)]
    verdict = judge(timings, kernels_s=[1.0, after])
    if words is None:
        assert verdict == "stable"
    else:
        assert verdict.startswith(words[0])
        assert words[1] in verdict


def test_warmup_never_enters_the_verdict():
    assert judge([timing(STEADY)] * 2, kernels_s=[1.0]) == "stable"


QUIET = Contention(
    elapsed_s=2.0,
    cpu_s=1.99,
    waited_s=0.002,
    involuntary_switches=4,
    steal_share=0.0,
    others_share=0.02,
    kernel_s=1.0,
)


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "stable"),
        ({"waited_s": 0.06}, "noisy: other programs kept us from the core 3% of the time"),
        ({"waited_s": 1.3}, "inconclusive: other programs kept us from the core 65% of the time"),
        ({"steal_share": 0.02}, "noisy: the hypervisor took 2% of all cores"),
        ({"steal_share": 0.2}, "inconclusive: the hypervisor took 20% of all cores"),
        ({"others_share": 0.5}, "noisy: other programs used 50% of all cores"),
        ({"waited_s": None, "involuntary_switches": 300, "cpu_s": 0.7}, "inconclusive: other programs kept us"),
        ({"waited_s": None, "cpu_s": 0.1}, "stable"),  # waits for a GPU: nobody pushed it off the core
        ({"steal_share": None, "others_share": None, "waited_s": None, "involuntary_switches": None}, "stable"),
    ],
)
def test_a_machine_that_others_use_is_told(change, verdict):
    timings = [replace(timing(STEADY, number), contention=replace(QUIET, **change)) for number in range(3)]
    assert judge(timings, kernels_s=[1.0, 1.01]).startswith(verdict)


def test_waiting_is_shared_out_among_threads():
    timings = [replace(timing(STEADY), contention=replace(QUIET, waited_s=1.0))]
    assert waited_share(timings, threads=1) == pytest.approx(0.5)
    assert waited_share(timings, threads=4) == pytest.approx(0.125)


def test_an_unsettled_warmup_makes_a_row_noisy():
    verdict = judge([replace(timing(STEADY), settled=False)] * 2, kernels_s=[1.0])
    assert verdict.startswith("noisy: the warm-up ended before calls were steady. Measure for longer")


def test_the_remedy_is_named_once():
    verdict = judge([timing(STEADY), timing([1.5, 1.5])], kernels_s=[1.0, 1.5])
    assert verdict.count("measure for longer") + verdict.count("Measure for longer") == 1
    assert "fix the processor's clock" in verdict
