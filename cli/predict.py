"""`ttl-deploy predict`: probabilities for images."""

from pathlib import Path
from typing import Annotated

import typer

NAME = "predict"


def run(
    artifact: Annotated[Path, typer.Argument(help="Artifact, or a run folder with one.")],
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="CSV table to write.")] = Path("predictions.csv"),
    target: Annotated[str, typer.Option(help="Runtime and device to run on.")] = "onnxruntime-cpu",
    batch: Annotated[int, typer.Option(min=1, help="Images per call.")] = 8,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 1,
) -> None:
    """Predict images with an artifact: path, class and one probability per class, as CSV.

    An image that cannot be read gets a row with the reason; the exit code is then 3.
    """
    from ttl_deploy.errors import UnreadableImageError
    from ttl_deploy.runtime.artifact import open_artifact
    from ttl_deploy.runtime.predict import predict, write_predictions

    from .progress import say, show_steps
    from .runs import artifact_path

    opened = open_artifact(artifact_path(artifact))
    with show_steps(f"predicting with {opened.manifest.name}") as update:
        answers = predict(opened, images, target=target, batch=batch, threads=threads, progress=update)
        counts = write_predictions(out, answers, classes=opened.manifest.classes)
    say(f"{counts.predicted} images predicted, {counts.failed} not readable: {out}")
    if counts.failed:
        raise UnreadableImageError(f"{counts.failed} images could not be read: see the column `error` of {out}")
