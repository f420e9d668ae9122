"""Which stored predictions the report's curves are of: those of the chosen model, and of the reference beside it."""

import numpy as np

from ttl_deploy.data.labels import label_array
from ttl_deploy.records import codec
from ttl_deploy.records.artifacts import ArtifactManifest
from ttl_deploy.records.data import Split
from ttl_deploy.records.scores import Choice, Front
from ttl_deploy.report.model_curves import Predicted, Role, RunCurves, trace_models
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime import stored_predictions, stored_subgroups
from ttl_deploy.runtime.stored_subgroups import WantedModel

_SPLITS: tuple[Split, ...] = ("test", "val")


def read_curves(run: RunFolder, front: Front, choice: Choice) -> RunCurves | None:
    """Trace the models' curves on test where the search opened it for them, else on validation.

    None where their predictions are not stored any more. What the search opened of the test split is read again, and
    nothing more.
    """
    models = _find_models(run, front, choice)
    split = next((one for one in _SPLITS if stored_subgroups.has_predictions(run, models["chosen"], one)), None)
    if split is None:
        return None
    known = {role: model for role, model in models.items() if stored_subgroups.has_predictions(run, model, split)}
    stored = stored_predictions.read([run.trial(model.key) for model in known.values()], split=split)
    predicted = [
        Predicted(
            role=role,
            key=model.key,
            probabilities=one.probabilities,
            temperature=_temperature(run, model),
        )
        for (role, model), one in zip(known.items(), stored, strict=True)
    ]
    samples = stored[0].samples
    patients = np.array([sample.patient_id for sample in samples])
    return trace_models(predicted, label_array(samples), patients, classes=stored[0].classes, split=split)


def _find_models(run: RunFolder, front: Front, choice: Choice) -> dict[Role, WantedModel]:
    """Return the shipped model, and the reference by the same seed where that was trained."""
    chosen = WantedModel(candidate=choice.candidate, seed=choice.seed)
    models: dict[Role, WantedModel] = {"chosen": chosen}
    if front.reference is not None:
        point = front.point(front.reference)
        if point.candidate != choice.candidate:
            seed = choice.seed if choice.seed in point.seeds else point.seeds[0]
            models["reference"] = WantedModel(candidate=point.candidate, seed=seed)
    return models


def _temperature(run: RunFolder, model: WantedModel) -> float:
    """Return what the exported file of a model divides its logits by; 1 where there is none."""
    path = run.export(model.candidate) / "manifest.json"
    if not path.is_file():
        return 1.0
    manifest = codec.load(ArtifactManifest, path)
    return manifest.temperature if manifest.seed == model.seed else 1.0
