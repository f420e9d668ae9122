"""The profile measures what it lacks, keeps what it measured, and says why of the rest."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ttl_deploy.errors import GateError, RunInterruptedError, TargetUnavailableError
from ttl_deploy.models.cuts import list_cuts, resolve_cuts
from ttl_deploy.models.torchvision_border import load_torchvision
from ttl_deploy.records import codec
from ttl_deploy.records.benchmarks import Timing
from ttl_deploy.records.models import FULL, ModelSpec
from ttl_deploy.records.trials import Profile
from ttl_deploy.runtime.measurement import Measurement
from ttl_deploy.search import measuring
from ttl_deploy.search.profile import describe_profile, profile_cuts
from ttl_deploy.search.profile_key import ProfilePlan

BACKBONE = "squeezenet1_1"
KNOWN = list_cuts(BACKBONE, image_size=32, classes=2)
NAMES = [cut.name for cut in KNOWN[:3]] + [FULL]
LATENCY_S = {name: 0.001 * (number + 1) for number, name in enumerate(NAMES)}


class Clock:
    """Stands for exporter and runtime: counts what is measured, in which order, and gives made-up figures."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, str]] = []
        self.factor = 1.0
        self.stop_after: int | None = None
        self.refused: dict[str, str] = {}

    def measure_once(self, path: Path, spec: ModelSpec, plan: ProfilePlan, number: int) -> Measurement | str:
        if self.stop_after is not None and len(self.calls) >= self.stop_after:
            raise RunInterruptedError("interrupted", signal_number=2)
        self.calls.append((number, spec.cut))
        if spec.cut in self.refused:
            return self.refused[spec.cut]
        latency_s = self.factor * LATENCY_S[spec.cut] * (1 + 0.01 * number)
        timing = Timing(
            round=number, load_s=0.1, warmup_s=(latency_s,), samples_s=(latency_s,) * 5, cpu_samples_s=(latency_s,) * 5
        )
        return Measurement(timing=timing, runtime="onnxruntime 1.0", precision="fp32")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(measuring, "measure_once", found.measure_once)
    monkeypatch.setattr(measuring, "export_for_timing", lambda model, size, path: path.write_bytes(b"onnx"))
    return found


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TTL_DEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "profiles"


def profile(names: list[str] = NAMES, *, backbone: str = BACKBONE, measure_again: bool = False, **plan: Any) -> Profile:
    cuts = resolve_cuts(names, list_cuts(backbone, image_size=32, classes=2))
    specs = {cut.name: ModelSpec(backbone=backbone, cut=cut.name, classes=2, image_size=32) for cut in cuts}
    steps: list[tuple[str, int, int]] = []
    return profile_cuts(
        cuts,
        specs,
        plan=ProfilePlan(**plan),
        measure_again=measure_again,
        progress=lambda stage, done, total: steps.append((stage, done, total)),
    )


def test_every_cut_is_exported_and_timed_for_real() -> None:
    cuts = resolve_cuts(["stage2.3", FULL], list_cuts("shufflenet_v2_x0_5", image_size=32, classes=2))
    found = profile(["stage2.3", FULL], backbone="shufflenet_v2_x0_5", seconds=0.01, rounds=2)
    assert [cut.cut for cut in found.cuts] == ["stage2.3", FULL]
    assert all(cut.latency_s > 0 and cut.latency_noise_s >= 0 and cut.size_bytes > 0 for cut in found.cuts)
    assert [(cut.params, cut.macs) for cut in found.cuts] == [(cut.params, cut.macs) for cut in cuts]
    assert [cut.peak_bytes for cut in found.cuts] == [cut.peak_bytes for cut in cuts]
    assert (found.batch, found.threads, found.precision, found.image_size) == (1, 1, "fp32", 32)
    assert found.cuts[1].size_bytes == pytest.approx(cuts[1].weights_bytes, rel=0.2)


def test_the_timed_file_holds_every_weight_also_where_training_begins_with_zeros(tmp_path: Path) -> None:
    load_torchvision()
    cut = next(cut for cut in list_cuts("timm:resnet18", image_size=32, classes=2) if cut.name == "layer2.1")
    spec = ModelSpec(backbone="timm:resnet18", cut=cut.name, classes=2, image_size=32)
    job = measuring.Job(spec=spec, rounds_done=0, keep=lambda measurement, size: sizes.append(size))
    sizes: list[int] = []
    plan = ProfilePlan(seconds=0.01, rounds=1)
    assert measuring.measure_jobs([job], plan, progress=lambda stage, done, total: None) == {}
    assert sizes == [pytest.approx(4 * cut.params, rel=0.03)]


def test_rounds_go_forwards_then_backwards(clock: Clock) -> None:
    profile()
    forwards, backwards = [(0, name) for name in NAMES], [(1, name) for name in reversed(NAMES)]
    assert clock.calls == [*forwards, *backwards, *((2, name) for name in NAMES)]


def test_the_latency_is_the_middle_round_and_the_noise_their_spread(clock: Clock) -> None:
    for cut in profile().cuts:
        assert cut.latency_s == pytest.approx(1.01 * LATENCY_S[cut.cut])
        assert cut.latency_noise_s == pytest.approx(0.02 * LATENCY_S[cut.cut])
        assert not cut.cached


def test_a_second_call_measures_nothing_and_says_so(clock: Clock) -> None:
    first = profile()
    clock.calls.clear()
    second = profile()
    assert clock.calls == []
    assert all(cut.cached for cut in second.cuts)
    for name in ("latency_s", "latency_noise_s", "measured", "size_bytes"):
        assert [getattr(cut, name) for cut in second.cuts] == [getattr(cut, name) for cut in first.cuts]
    assert describe_profile(first) == ()
    day = first.cuts[0].measured[:10]
    assert describe_profile(second) == (f"4 of 4 latencies come from the cache, measured {day}",)


def test_measuring_again_replaces_what_was_kept(clock: Clock) -> None:
    profile()
    clock.factor = 2.0
    again = profile(measure_again=True)
    assert len(clock.calls) == 2 * 3 * len(NAMES)
    assert again.cuts[0].latency_s == pytest.approx(2.02 * LATENCY_S[NAMES[0]])
    assert profile().cuts[0].latency_s == again.cuts[0].latency_s


@pytest.mark.parametrize("stop_after", [1, 5, 9])
def test_an_interrupted_measurement_goes_on_where_it_was(clock: Clock, stop_after: int) -> None:
    clock.stop_after = stop_after
    with pytest.raises(RunInterruptedError):
        profile()
    clock.stop_after = None
    found = profile()
    resumed = list(clock.calls)
    clock.calls.clear()
    profile(measure_again=True)
    assert resumed == clock.calls
    assert [cut.cached for cut in found.cuts] == [name not in {n for _, n in resumed[stop_after:]} for name in NAMES]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: text.replace("0.004", "0.003"),
        lambda text: json.dumps({"check": "", "entry": {"key": "other"}}),
    ],
)
def test_a_damaged_entry_is_measured_again_with_a_note(clock: Clock, cache: Path, damage: Callable[[str], str]) -> None:
    profile([FULL])
    (entry,) = cache.iterdir()
    whole = entry.read_text()
    entry.write_text(damage(whole))
    assert entry.read_text() != whole
    clock.calls.clear()
    found = profile([FULL])
    assert len(clock.calls) == 3
    assert len(found.notes) == 1
    assert found.notes[0].startswith("the latency of full is measured again: ")
    assert json.loads(entry.read_text())["entry"]["timings"] == json.loads(whole)["entry"]["timings"]


def test_new_cuts_are_measured_beside_one_that_is_known(clock: Clock) -> None:
    first = profile([NAMES[0], FULL])
    clock.calls.clear()
    found = profile()
    assert [name for number, name in clock.calls if number == 0] == [NAMES[1], NAMES[2], FULL]
    assert [cut.cached for cut in found.cuts] == [True, False, False, True]
    assert found.cuts[-1].latency_s == first.cuts[-1].latency_s
    assert found.notes == ()


def test_a_note_says_when_the_machine_has_become_slower_in_between(clock: Clock) -> None:
    profile([NAMES[0], FULL])
    clock.factor = 1.5
    (note,) = profile().notes
    assert "this machine is now 50% slower" in note
    assert "full took 4.04 ms, now 6.06 ms" in note
    assert "--measure-again" in note
    assert profile().cuts[-1].latency_s == pytest.approx(1.01 * LATENCY_S[FULL])


def test_a_resumed_measurement_needs_no_anchor(clock: Clock) -> None:
    clock.stop_after = 9
    with pytest.raises(RunInterruptedError):
        profile()
    clock.stop_after = None
    clock.calls.clear()
    profile()
    assert clock.calls == [(2, name) for name in NAMES[1:]]


def test_a_latency_that_differs_widely_between_processes_is_named(clock: Clock, monkeypatch: Any) -> None:
    steady = clock.measure_once

    def unsteady(path: Path, spec: ModelSpec, plan: ProfilePlan, number: int) -> Measurement | str:
        clock.factor = 1.0 + (number == 2 and spec.cut == FULL)
        return steady(path, spec, plan, number)

    monkeypatch.setattr(measuring, "measure_once", unsteady)
    (note,) = profile().notes
    assert note.startswith("1 of 4 latencies differ by more than 25% between processes (full): close other programs")


def test_a_cut_that_cannot_be_exported_costs_only_its_own_latency(clock: Clock, monkeypatch: Any) -> None:
    def refuse_the_first(model: object, image_size: int, path: Path) -> None:
        if path.name == "0.onnx":
            raise GateError("torch cannot export this model")
        path.write_bytes(b"onnx")

    monkeypatch.setattr(measuring, "export_for_timing", refuse_the_first)
    shallow, *others = profile().cuts
    assert (shallow.latency_s, shallow.note) == (None, "torch cannot export this model")
    assert all(cut.latency_s is not None and not cut.note for cut in others)


def test_a_cut_that_crashes_the_runtime_is_tried_again_by_the_next_call(clock: Clock) -> None:
    clock.refused = {NAMES[1]: "the runtime exited with code 3"}
    found = profile()
    assert found.cuts[1].latency_s is None
    assert describe_profile(found) == (f"{NAMES[1]} has no latency: the runtime exited with code 3",)
    assert [name for _, name in clock.calls].count(NAMES[1]) == 1
    clock.refused = {}
    assert profile().cuts[1].latency_s == pytest.approx(1.01 * LATENCY_S[NAMES[1]])


def test_nothing_to_time_is_an_error_with_the_reason(clock: Clock) -> None:
    clock.refused = dict.fromkeys(NAMES, "the runtime gave no answer within 3 s")
    with pytest.raises(TargetUnavailableError, match="gave no answer within 3 s"):
        profile()


def test_a_profile_of_an_older_run_folder_still_loads() -> None:
    row = '"cut": "full", "params": 10, "macs": 20, "layers": 2, "params_share": 1.0, "macs_share": 1.0'
    costs = '"size_bytes": 40, "latency_s": 0.001, "latency_noise_s": 0.0, "note": ""'
    head = '"target": "t", "runtime": "r", "precision": "fp32", "threads": 1, "batch": 1, "machine": "m"'
    found = codec.from_builtins(Profile, json.loads(f'{{{head}, "cuts": [{{{row}, {costs}}}]}}'))
    assert (found.cuts[0].receptive_field, found.cuts[0].cached, found.image_size) == (None, False, None)
