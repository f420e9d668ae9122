"""Sentences that hold the report together: the question, what of the data was left out, what to type again."""

import shlex

from ttl_deploy.records.artifacts import MAX_DROP, OPERATING_RULES, ArtifactManifest
from ttl_deploy.report.story import RunStory

_NAMED = 4
"""Of so many classes the question names each; the data section names all."""


def ask(story: RunStory) -> str:
    """Put the question that a run answers."""
    classes = story.fingerprint.classes
    several = story.fingerprint.multilabel
    named = f"{len(classes)} {'findings' if several else 'classes'}" if len(classes) > _NAMED else _enumerate(classes)
    return (
        f"How many layers of {story.settings.backbone} does it take to {'find' if several else 'tell apart'} {named}, "
        "if no more than "
        f"{story.settings.margin:g} of the full network's AUROC may be lost?"
    )


def tell_gap(story: RunStory) -> str:
    """Say how many trainings failed, so that the answer rests on the others; nothing where none did."""
    failed, all_trials = len(story.failures), len(story.trials)
    if not failed:
        return ""
    return f"{failed} of {all_trials} trainings failed, and what they would have shown is missing here."


def tell_omissions(story: RunStory) -> tuple[str, ...]:
    """Say which images, classes and labels have no part in the run, and why; paths are not named."""
    settings, reading = story.settings, story.settings.reading
    lines = []
    if story.unusable:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in story.unusable.items())
        lines.append(f"Images that do not decode: {sum(story.unusable.values())}: {reasons}.")
    if reading.labels:
        lines.append(f"Of the source's labels only these were kept: {', '.join(reading.labels)}.")
    gone = [old for old, new in reading.classes.items() if not new]
    if gone:
        lines.append(f"Classes left out on demand: {', '.join(gone)}.")
    if story.fingerprint.multilabel:
        lines.append(_tell_unknown(story))
    if settings.limit_train is not None:
        lines.append(f"Training used {settings.limit_train} images at most (--limit-train).")
    if settings.train_fraction not in (None, 1):
        lines.append(f"Training used {100 * (settings.train_fraction or 0):g} % of its patients (--train-fraction).")
    return tuple(lines) or ("Nothing that is recorded.",)


def reproduction(story: RunStory) -> tuple[str, ...]:
    """Return the commands that make this run and its artifacts again; in all but the first, RUN is its folder."""
    lines = [story.command]
    for export in story.exports:
        manifest = export.manifest
        lines.append(f"ttl-deploy export RUN {shlex.join(_export_options(manifest))}")
    artifacts = [_artifact_path(export.manifest) for export in story.exports]
    lines += [f"ttl-deploy verify {path} --data {shlex.quote(story.settings.data)}" for path in artifacts]
    if artifacts:
        lines.append(f"ttl-deploy bench {' '.join(artifacts)}")
    if story.analysis is not None:
        lines.append("ttl-deploy analyze RUN")
    return (*lines, "ttl-deploy report RUN")


def _artifact_path(manifest: ArtifactManifest) -> str:
    """Return where an artifact lies, from its name: the backbone's, and that of its folder."""
    return shlex.quote(f"RUN/exports/{manifest.name.removeprefix(f'{manifest.model.backbone}-')}")


def _export_options(manifest: ArtifactManifest) -> list[str]:
    """Return the options that make an artifact again, as far as its manifest tells; defaults that vary are named."""
    given = ["--format", manifest.format, "--precision", manifest.precision, "--cut", manifest.model.cut]
    given += ["--strategy", manifest.strategy, "--seed", str(manifest.seed)]
    point = manifest.operating_point
    if point is not None and point.rule in OPERATING_RULES and point.rule != "argmax":
        share = "" if point.target is None else f"={point.target:g}"
        given += ["--operating-point", f"{point.rule}{share}"]
    if manifest.calibration is None:
        given += ["--no-calibrate"]
    if manifest.gate is not None and manifest.gate.max_drop != MAX_DROP:
        given += ["--max-drop", f"{manifest.gate.max_drop:g}"]
    variant = manifest.name.removesuffix(f"-{manifest.precision}")
    if manifest.format == "trt":  # what sets these folders, and so the names, apart
        given += ["--target", "jetpack5"] if variant.endswith("-trt-jetpack5") else []
        given += ["--flavour", "rtx"] if variant.endswith("-rtx") else []
    finetuning = manifest.quantisation.finetuning if manifest.quantisation else None
    return given if finetuning is None else [*given, "--qat-epochs", str(finetuning.epochs)]


def _tell_unknown(story: RunStory) -> str:
    unknown = sum(sum(count.unknown) for count in story.fingerprint.counts)
    reading = story.settings.reading
    return (
        f"Labels that nobody knows: {unknown}; they are masked, not taken for absent. Uncertain ones were read as "
        f"{reading.uncertain}, blank ones as {reading.blank}."
    )


def _enumerate(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
