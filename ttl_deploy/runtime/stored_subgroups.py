"""The subgroups of a finished run, from what its trials predicted; no image is read, and no model is run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttl_deploy.data.labels import label_array
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import NoRunError, UnknownNameError, UsageError
from ttl_deploy.evidence import columns, subgroups
from ttl_deploy.evidence.calibration import apply_temperature
from ttl_deploy.evidence.noninferiority import FEWEST_PATIENTS
from ttl_deploy.evidence.operating_point import EACH
from ttl_deploy.evidence.subgroups import Cases, Scored
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import ArtifactManifest
from ttl_deploy.records.candidates import Candidate, slug_of
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Choice, Front, FrontPoint
from ttl_deploy.records.subgroups import Subgroups
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime import stored_predictions
from ttl_deploy.runtime.stored_predictions import StoredPredictions


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How a probability becomes a class: the most probable one, or for two classes a threshold on the second.

    `threshold` is of the probability after the logits were divided by `temperature`.
    """

    temperature: float = 1.0
    threshold: float | None = None

    def describe(self, classes: Sequence[str]) -> str:
        """Say it in words."""
        if self.threshold is None:
            return "the most probable class"
        calibrated = "calibrated " if self.temperature != 1 else ""
        return f"{classes[1]} from a {calibrated}probability of {self.threshold:.4g} on, as in the exported file"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedModel:
    """Which model is meant: a candidate and the seed of its training."""

    candidate: Candidate
    seed: int

    @property
    def key(self) -> str:
        """The trial's key."""
        return f"{self.candidate.cut}__{slug_of(self.candidate.strategy)}__s{self.seed}"


def find_model(
    run: RunFolder, *, cut: str | None = None, strategy: str | None = None, seed: int | None = None
) -> WantedModel:
    """Return the chosen model, or the one that is named; what is not named is the choice's, else best on validation.

    Raises `UnknownNameError` listing what was trained, and `NoRunError` before anything was chosen.
    """
    front, choice = _read_front(run), run.read_choice() if run.chosen.is_file() else None
    point = _find_point(front, choice, cut, strategy)
    if seed is None:
        chosen = choice is not None and choice.candidate == point.candidate
        seed = choice.seed if choice is not None and chosen else _best_seed(point)
    if seed not in point.seeds:
        raise UnknownNameError("trained seed", str(seed), map(str, point.seeds))
    return WantedModel(candidate=point.candidate, seed=seed)


def describe_subgroups(
    run: RunFolder,
    model: WantedModel,
    *,
    split: Split | None = None,
    by: Sequence[str] = (),
    bands: Mapping[str, Sequence[float]] | None = None,
    decision: Decision | None = None,
) -> Subgroups:
    """Score a trained model, and the run's reference beside it, on the subgroups of one split.

    Without a `split` it is test where the search opened it for this model, else validation; without a `decision` that
    of the exported file, where there is one. `by` and `bands` are those of `columns.find_groupings`. Raises
    `UsageError` for a column that is not there, and a test split that was not opened.
    """
    chosen, why = _choose_split(run, model, split)
    own = _read_trial(run, model.key, chosen)
    other = _find_reference(run, model, chosen)
    groupings, left_out = columns.find_groupings([sample.extra for sample in own.samples], by=by, bands=bands)
    cases = Cases(
        labels=label_array(own.samples),
        patients=np.array([sample.patient_id for sample in own.samples]),
        classes=own.classes,
        split=chosen,
    )
    rule = decision if decision is not None else exported_decision(run, model)
    scored = Scored(probabilities=_calibrate(own, rule), threshold=rule.threshold)
    reference = None if other is None else Scored(probabilities=_read_trial(run, other.key, chosen).probabilities)
    return Subgroups(
        split=chosen,
        model=model.key,
        reference=None if other is None else other.key,
        classes=own.classes,
        decision=EACH.in_words if cases.labels.ndim == 2 else rule.describe(own.classes),
        level=cases.level,
        patients_known=own.patients_known,
        fewest=FEWEST_PATIENTS,
        overall=subgroups.score_split(cases, scored, reference),
        columns=subgroups.score_columns(cases, groupings, scored, reference),
        left_out=left_out,
        why_split=why,
    )


def list_columns(run: RunFolder) -> tuple[str, ...]:
    """Return the columns of a run's data besides path, label, patient and split."""
    return tuple(dict.fromkeys(name for sample in load_manifest(run.data).samples for name in sample.extra))


def read_models(run: RunFolder, found: Subgroups) -> tuple[StoredPredictions, ...]:
    """Return the stored predictions that subgroups rest on: the model's, and the reference's if it stands beside."""
    keys = [key for key in (found.model, found.reference) if key is not None]
    return tuple(_read_trial(run, key, found.split) for key in keys)


def exported_decision(run: RunFolder, model: WantedModel) -> Decision:
    """Return how the file decides that was exported of a model; the most probable class where none was."""
    path = run.export(model.candidate) / "manifest.json"
    if not path.is_file():
        return Decision()
    manifest = codec.load(ArtifactManifest, path)
    if manifest.seed != model.seed or manifest.threshold is None:
        return Decision()
    return Decision(temperature=manifest.temperature, threshold=manifest.threshold)


def has_predictions(run: RunFolder, model: WantedModel, split: Split) -> bool:
    """Tell whether a model's predictions of a split are stored: of test, whether it was opened for the model."""
    return (run.trial(model.key) / f"predictions_{split}.npz").is_file()


def _calibrate(own: StoredPredictions, rule: Decision) -> NDArray[np.float64]:
    return np.asarray(apply_temperature(own.probabilities, rule.temperature), dtype=np.float64)


def _read_front(run: RunFolder) -> Front:
    if not run.front.is_file():
        raise NoRunError(f"{run.path} has no front yet: resume its search by its own command, in {run.command}")
    return run.read_front()


def _find_point(front: Front, choice: Choice | None, cut: str | None, strategy: str | None) -> FrontPoint:
    if cut is None and choice is None:
        raise NoRunError("nothing is chosen yet: name a --cut")
    wanted = cut if cut is not None or choice is None else choice.cut
    points = {point.strategy: point for point in front.points if point.cut == wanted}
    if not points:
        raise UnknownNameError("trained cut", str(wanted), front.cuts)
    if strategy is not None and strategy not in points:
        raise UnknownNameError("trained strategy", strategy, points, f"The cut was {wanted}.")
    if strategy is None and choice is not None and choice.cut == wanted:
        strategy = choice.strategy
    return points[strategy] if strategy is not None else max(points.values(), key=lambda point: max(_aurocs(point)))


def _aurocs(point: FrontPoint) -> list[float]:
    """Return the validation AUROC of every seed; an undefined one is the worst."""
    return [-1.0 if value is None else value for value in point.seed_values]


def _best_seed(point: FrontPoint) -> int:
    return max(zip(_aurocs(point), (-seed for seed in point.seeds), strict=True))[1] * -1


def _choose_split(run: RunFolder, model: WantedModel, given: Split | None) -> tuple[Split, str]:
    opened = has_predictions(run, model, "test")
    if given == "test" and not opened:
        raise UsageError(
            f"the test split was not opened for {model.key}: only `ttl-deploy search` opens it, for the reference and "
            "the members of the front. Use --split val, or --cut with one of these"
        )
    if opened and given != "val":
        return "test", "opened by the search; nothing was run anew"
    too_good = "the model was chosen on validation, so its scores are a little too good"
    return "val", f"{'as asked for' if given == 'val' else 'test was not opened for this model'}; {too_good}"


def _find_reference(run: RunFolder, model: WantedModel, split: Split) -> WantedModel | None:
    """Return the run's reference, of the same seed if that was trained; None where it is the model, or not scored."""
    front = _read_front(run)
    if front.reference is None:
        return None
    point = front.point(front.reference)
    found = WantedModel(candidate=point.candidate, seed=model.seed if model.seed in point.seeds else point.seeds[0])
    known = has_predictions(run, found, split)
    return found if known and point.candidate != model.candidate else None


def _read_trial(run: RunFolder, key: str, split: Split) -> StoredPredictions:
    if not (run.trial(key) / f"predictions_{split}.npz").is_file():
        raise UsageError(f"{run.trial(key)} holds no predictions of the split {split!r}: it was moved or deleted")
    return stored_predictions.read([run.trial(key)], split=split)[0]
