"""The files that `compression.py` measures: artifacts of a run as `export` publishes them, or untrained networks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from compression_forms import TORCH_FORMS, Answers, Form, Pixels, Trained
from untrained_precisions import make_files, megabytes

from ttl_deploy.data.cache import open_cache
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.errors import GateError
from ttl_deploy.evidence.front import LabelledSplit
from ttl_deploy.models.width.pruning import narrow_spec
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT
from ttl_deploy.records.data import Split
from ttl_deploy.records.models import FULL, IMAGENET_INPUT, ModelSpec
from ttl_deploy.records.trials import Trial
from ttl_deploy.records.variants import base_cut
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.runtime.artifact import Artifact, open_artifact, precision_to_ask
from ttl_deploy.search import findings
from ttl_deploy.search.shipping import ship
from ttl_deploy.training.loop import WEIGHTS

_ALL = (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8"), ("ort", "int8"))
_FEW = (("onnx", "fp32"), ("openvino", "bf16"), ("openvino", "int8"))
_LEAST = (("openvino", "int8"),)
_UNTRAINED = (
    ("onnxruntime-cpu fp32", "single.onnx", "onnxruntime-cpu", "fp32"),
    ("openvino-cpu fp32", "single.xml", "openvino-cpu", "fp32"),
    ("openvino-cpu bf16", "single.xml", "openvino-cpu", "bf16"),
    ("openvino-cpu int8", "shared.xml", "openvino-cpu", None),
    ("onnxruntime-cpu int8", "ort.onnx", "onnxruntime-cpu", None),
)


def forms_of_run(run: RunFolder) -> tuple[list[Form], list[dict[str, str]]]:
    """Export what is not there yet, and return all forms, the full network in eager fp32 first; and what was refused.

    The models are the full network, the cut that was chosen or that the choice is a variant of, their variants, and
    what else on the front was trained by itself.
    """
    forms: list[Form] = []
    refused: list[dict[str, str]] = []
    for name, wanted in _models(run):
        artifacts = list(_export(run, name, run.settings().strategies[0], wanted, refused))
        if not artifacts:
            continue
        trained = _trained(run, artifacts[0])
        shown = TORCH_FORMS if name == FULL else TORCH_FORMS[:1] if name == base_cut(name) else ()
        forms += [Form(model=name, name=form, side=trained.spec.image_size, torch=trained) for form in shown]
        forms += [_form(name, artifact) for artifact in artifacts]
    return forms, refused


def _models(run: RunFolder) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    found = findings.read(run)
    assert found.choice is not None
    chosen = base_cut(found.choice.cut)
    alone = [point for point in found.front.points if point.strategy != JOINT]
    names = [point.cut for point in alone]
    yield FULL, _ALL
    yield from ((name, _LEAST) for name in names if base_cut(name) == FULL != name)
    if chosen != FULL:
        yield chosen, _ALL
        yield from ((name, _FEW) for name in names if base_cut(name) == chosen != name)
    yield from ((one.cut, _FEW) for one in alone if one.on_front and base_cut(one.cut) not in (FULL, chosen))


def _export(
    run: RunFolder, cut: str, strategy: str, wanted: tuple[tuple[str, str], ...], refused: list[dict[str, str]]
) -> Iterator[Artifact]:
    """Yield artifacts of one candidate: those that lie there, and those that `export` publishes now."""
    for format_name, precision in wanted:
        suffix = "" if (format_name, precision) == ("onnx", "fp32") else f"-{format_name}-{precision}"
        folder = run.path / "exports" / f"{cut}{suffix}"
        print(f"{folder.name}: {'there' if folder.exists() else 'exporting'}", flush=True)
        try:
            yield open_artifact(
                folder
                if folder.exists()
                else ship(run, format_name=format_name, precision=precision, cut=cut, strategy=strategy).folder
            )
        except GateError as error:
            refused.append({"model": cut, "refused": f"{format_name} {precision}", "why": str(error)})


def _trained(run: RunFolder, artifact: Artifact) -> Trained:
    """Return the torch model that an artifact was made from."""
    manifest = artifact.manifest
    for key in findings.outcomes_so_far(run):
        folder = run.trial(key)
        trial = codec.load(Trial, folder / "trial.json")
        same_training = (trial.seed, trial.strategy) == (manifest.seed, manifest.strategy)
        if same_training and replace(trial.model, layers=()) == manifest.model:
            return Trained(
                spec=trial.model, weights=folder / WEIGHTS, convention=trial.input, temperature=manifest.temperature
            )
    raise GateError(f"{artifact.folder} is of no trial of {run.path}")


def _form(name: str, artifact: Artifact) -> Form:
    manifest = artifact.manifest
    size = sum(entry.size_bytes for entry in manifest.files if entry.name.startswith("model."))
    return Form(
        model=name,
        name=f"{artifact.default_target} {manifest.precision}",
        side=manifest.input.height,
        file=artifact.model_path,
        target=artifact.default_target,
        precision=precision_to_ask(manifest),
        megabytes=round(size / 1e6, 3),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answerable:
    """The held-out images of a run as each model takes them, validation first, then test where that was opened."""

    images: Mapping[str, Pixels]
    truth: Mapping[Split, LabelledSplit]
    opened: frozenset[str]

    @classmethod
    def of(cls, run: RunFolder) -> "Answerable":
        """Read the images of every candidate of the front."""
        manifest, settings = load_manifest(run.data), run.settings()
        front = findings.read(run).front
        opened = frozenset(one.cut for one in front.points if one.test and one.strategy != JOINT)
        images = {}
        for point in (one for one in front.points if one.strategy != JOINT):
            key = next(iter(findings.finished(findings.outcomes_so_far(run))[point.candidate].values()))
            size = codec.load(Trial, run.trial(key) / "trial.json").model.image_size
            splits: tuple[Split, ...] = ("val", "test") if point.cut in opened else ("val",)
            positions = np.concatenate([manifest.of_split(split) for split in splits])
            images[point.cut] = open_cache(manifest, replace(settings.decode, image_size=size)).pixels(positions)
        splits = ("val", "test")
        truth = {split: findings.labelled_split(run.data, split) for split in splits}
        return cls(images=images, truth=truth, opened=opened)

    def of_split(self, answers: Answers | None, split: Split, model: str) -> Answers | None:
        """Return the answers to one split; None where there are none."""
        count = len(np.asarray(self.truth["val"].labels))
        if answers is None or (split == "test" and model not in self.opened):
            return None
        return answers[:count] if split == "val" else answers[count:]


def untrained_forms(folder: Path, *, backbone: str, cut: str, image_size: int, width: float) -> list[Form]:
    """Write the files of networks with random weights: full, cut, narrower, and narrower at three quarters the size."""
    full = ModelSpec(backbone=backbone, cut=FULL, classes=2, image_size=image_size)
    short = replace(full, cut=cut)
    small = image_size * 3 // 4 // 32 * 32
    specs = {
        FULL: full,
        cut: short,
        f"{cut}@w{width:g}": narrow_spec(short, width),
        f"{cut}@{small}px@w{width:g}": narrow_spec(replace(short, image_size=small), width),
    }
    forms = [
        Form(model=FULL, name=name, side=image_size, torch=Trained(spec=full, weights=None, convention=IMAGENET_INPUT))
        for name in TORCH_FORMS
    ]
    for number, (name, spec) in enumerate(specs.items()):
        forms += _write_untrained(folder / f"{number}", name, spec)
    return forms


def _write_untrained(folder: Path, name: str, spec: ModelSpec) -> list[Form]:
    folder.mkdir()
    make_files(folder, spec)
    return [
        Form(
            model=name,
            name=form,
            side=spec.image_size,
            file=folder / file,
            target=target,
            precision=precision,
            megabytes=round(megabytes(folder / file), 3),
        )
        for form, file, target, precision in _UNTRAINED
    ]
