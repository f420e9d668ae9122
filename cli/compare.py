"""`ttl-deploy compare`: is the smaller model as good as the full one?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ttl_deploy.records.scores import Comparison

NAME = "compare"


def run(
    models: Annotated[
        list[Path],
        typer.Argument(
            help="The reference, then what is compared with it: predictions_test.npz or predictions_val.npz of a "
            "trial, an artifact's folder, or a CSV that `predict` wrote."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Table of the images, for CSV files and artifacts outside of their run: path, label, and "
            "optionally patient_id, split, sha256; a run's data/manifest.csv is one."
        ),
    ] = None,
    margin: Annotated[float, typer.Option(help="Loss of AUROC from which on a model is worse.")] = 0.02,
    split: Annotated[str | None, typer.Option(help="val or test [what the files are of, else test].")] = None,
    level: Annotated[float, typer.Option(help="Level of the intervals; verdicts take half of the rest.")] = 0.95,
    gate: Annotated[bool, typer.Option("--gate", help="Exit with 4 unless every model is non-inferior.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Test whether models are as good as the first one.

    Paired, by patient, corrected for their number.

    Verdicts: non-inferior, inferior, inconclusive (with the positives needed) or undefined; see docs/evidence.md.
    No model is run. A use of a run's test split is written into its ledger.
    """
    import shlex
    import sys

    from ttl_deploy.errors import GateError, UnknownNameError
    from ttl_deploy.evidence import noninferiority
    from ttl_deploy.records import codec
    from ttl_deploy.runtime import stored_predictions

    from .progress import say

    if split not in (None, "val", "test"):
        raise UnknownNameError("split", split, ("val", "test"))
    chosen = stored_predictions.choose_split(models, split)  # type: ignore[arg-type] # checked above
    stored = stored_predictions.read(models, split=chosen, labels=labels)
    first = stored[0]
    comparison = noninferiority.compare(
        {one.name: one.probabilities for one in stored},
        [sample.label for sample in first.samples],
        [sample.patient_id for sample in first.samples],
        split=chosen,
        patients_known=first.patients_known,
        margin=margin,
        level=level,
    )
    if told := stored_predictions.tell_temperatures(stored):
        say(told)
    command = shlex.join(["ttl-deploy", *sys.argv[1:]])
    for opened in stored_predictions.record_openings(stored, split=chosen, command=command):
        say(f"the ledger of {opened.path} now tells that its test split was used by this command")
    if as_json:
        print(codec.to_json(comparison))
    else:
        print_comparison(comparison)
    if gate and not comparison.all_non_inferior:
        failed = [
            f"{found.model} ({found.verdict})" for found in comparison.verdicts if found.verdict != "non-inferior"
        ]
        raise GateError(f"not shown to be as good as {comparison.reference}: {', '.join(failed)}")


def print_comparison(comparison: "Comparison") -> None:
    """Print a line per model, then what each verdict rests on."""
    from ttl_deploy.report import verdicts

    from .tables import print_table

    listing = verdicts.verdict_rows(comparison)
    title = f"{comparison.split} split: {comparison.images} images of {comparison.patients} patients"
    print_table(
        listing.columns, listing.rows, title=f"{title}, {comparison.positives} positive", numeric=listing.numeric
    )
    for found in comparison.verdicts:
        print(verdicts.state_verdict(found))
    for line in verdicts.describe_tests(comparison):
        print(line)
