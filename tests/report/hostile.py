"""A run whose names, notes, paths and reasons are attacks."""

from dataclasses import replace

import numpy as np

from ttl_deploy.records.refusals import Asked, RefusedExport
from ttl_deploy.records.subgroups import Subgroup, SubgroupColumn, Subgroups
from ttl_deploy.report.model_curves import Predicted, trace_models

RTL = "\N{RIGHT-TO-LEFT OVERRIDE}"
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    '<b>bold</b><a href="javascript:alert(3)">link</a>',
    "{{7*7}}</title></script><svg onload=alert(4)>",
    f"'{RTL}gnihtyna",
)


def with_findings(story, names):
    """Return the story with the curves of a task of three findings per image."""
    generator = np.random.default_rng(0)
    labels = (generator.random((60, 3)) < 0.4).astype(int)
    models = [
        Predicted(
            role=role,
            key=f"{names[0]}{role}",
            probabilities=np.clip(0.3 * labels + 0.6 * generator.random((60, 3)), 0, 1),
            temperature=1.3,
        )
        for role in ("chosen", "reference")
    ]
    found = trace_models(models, labels, np.arange(60) // 2, classes=names, split="test", replicates=50)
    return replace(story, model_curves=found)


def refuse(everything):
    """Return an export that was refused, all its texts being one attack."""
    asked = Asked(
        artifact=everything, format=everything, precision=everything, cut=everything, strategy=everything, seed=0,
        max_drop=0.005, qat_epochs=0, operating_rule=everything, calibrate=True,
    )  # fmt: skip # a table of fields
    return RefusedExport(
        asked=asked, kind="GateError", reason=everything, measured=None, command=everything, time=everything
    )


def hostile(story):
    """Put markup, scripts, templates and marks of direction where names, notes, paths and reasons stand."""
    script, image, link, template, turned = PAYLOADS
    everything = "".join(PAYLOADS)
    export = story.exports[0]
    manifest = replace(export.manifest, name=image, classes=(link, turned), intended_use=template, weights_note=script)
    bench = export.benchmarks[0]
    rows = tuple(replace(row, target=everything, verdict=everything, notes=(everything,)) for row in bench.rows)
    bench = replace(bench, rows=rows, machine=replace(bench.machine, host=everything))
    points = tuple(
        replace(point, cut=everything, name=everything) if point.cut == story.choice.cut else point
        for point in story.front.points
    )
    overall = Subgroup(name=link, images=9, patients=9, per_class=(4, 5), scores=points[0].validation, small=template)
    subgroups = Subgroups(
        split="test",
        model=script,
        reference=None,
        classes=(link, turned),
        decision=image,
        level=0.95,
        patients_known=True,
        fewest=10,
        overall=replace(overall, small=""),
        columns=(
            SubgroupColumn(
                column=everything, groups=(overall, replace(overall, name=turned)), banded=False, shared_patients=0
            ),
        ),
        left_out=(),
        why_split=template,
    )
    changed = replace(
        story,
        name=script,
        settings=replace(story.settings, backbone=image, data=everything),
        fingerprint=replace(story.fingerprint, name=template, classes=(link, turned)),
        warnings=tuple(replace(story.warnings[0], message=one) for one in PAYLOADS),
        unusable={everything: 3},
        front=replace(story.front, points=points, target=everything),
        choice=replace(story.choice, cut=everything, sentence=everything),
        trials=tuple(replace(one, key=one.key + everything, cut=everything) for one in story.trials),
        curves={key + everything: curve for key, curve in story.curves.items()},
        exports=(replace(export, manifest=manifest, benchmarks=(bench,)),),
        refused=(refuse(everything),),
        openings=(replace(story.openings[0], command=everything, trials=PAYLOADS),),
        subgroups=subgroups,
        versions={everything: everything},
        command=everything,
    )
    return with_findings(changed, (link, everything, turned))
