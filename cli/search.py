"""`ttl-deploy search`: find where to cut."""

import hashlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ttl_deploy.errors import UsageError

from .settings import build_settings, parse_gpus
from .sources import store_origins, typed_command

if TYPE_CHECKING:
    from ttl_deploy.records.trials import SearchSettings

NAME = "search"
_NO_SETTINGS = (
    *("context", "out", "device", "gpus", "executor", "address", "workers", "max_hours", "dry_run", "progress"),
    *("folds", "as_json"),
)
"""Options that do not decide the result."""


def run(
    context: typer.Context,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="densenet121 or another torchvision name, timm:NAME, cbr:NAME, slim:NAME, or package.module:function."
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Class folders, a table, a public set as downloaded (docs/data.md), or phantom[:KIND]."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Run folder [default: runs/BACKBONE-DATA-HASH].")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="imagenet, none, or a .pth/.safetensors file [imagenet].")] = None,
    normalise: Annotated[
        str | None,
        typer.Option(
            help="What pixels become: auto (as the weights know them), imagenet, torchxrayvision, zero-one, "
            "minus-one-one, or MEAN/STD for values in 0..1 [auto]."
        ),
    ] = None,
    cuts: Annotated[str | None, typer.Option(help="stages, all, or names separated by commas [stages].")] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            help="Side of the square image in pixels; several, e.g. 160,224, are compared for finalists [224]."
        ),
    ] = None,
    width: Annotated[
        str | None,
        typer.Option(help="Finalists also with this share of their channels, pruned and finetuned: 0.5 or 0.5,0.25."),
    ] = None,
    speedup: Annotated[
        str | None,
        typer.Option(help="The same by latency measured here: 2x takes the width that makes a finalist twice as fast."),
    ] = None,
    fit: Annotated[str | None, typer.Option(help="pad, stretch or crop to the square [pad].")] = None,
    grey: Annotated[
        str | None,
        typer.Option(
            help="Greys of more than 8 bits: auto (a DICOM file's window), full, window=CENTRE/WIDTH or "
            "percentile=LOW/HIGH (docs/dicom.md) [auto]."
        ),
    ] = None,
    val_fraction: Annotated[float | None, typer.Option(help="Share of patients for validation [0.15].")] = None,
    test_fraction: Annotated[float | None, typer.Option(help="Share of patients for the test [0.15].")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Seed of splits that are made here [0].")] = None,
    folds: Annotated[
        int | None,
        typer.Option(help="Cross-validate: one search per fold, each testing on its own, and one table of all [off]."),
    ] = None,
    limit_train: Annotated[int | None, typer.Option(help="Train on at most this many images.")] = None,
    train_fraction: Annotated[
        float | None, typer.Option(help="Train on this share of the training patients, e.g. 0.1.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of every training [10].")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step [32].")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of AdamW [5e-4].")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Weight decay [0.01].")] = None,
    warmup: Annotated[float | None, typer.Option(help="Share of the steps with a rising rate [0.1].")] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs without a better score before stopping; 0 never [5].")
    ] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest norm of the gradient [5].")] = None,
    label_smoothing: Annotated[float | None, typer.Option(help="Label smoothing [0].")] = None,
    class_weights: Annotated[
        str | None, typer.Option(help="balanced or none [balanced; none with --sampling balanced].")
    ] = None,
    loss: Annotated[str | None, typer.Option(help="cross-entropy or focal [cross-entropy].")] = None,
    joint_teaching: Annotated[
        float | None,
        typer.Option(min=0, help="With --policy guided: how much each exit learns from the deepest one [1]."),
    ] = None,
    focal_gamma: Annotated[
        float | None, typer.Option(help="How much focal weighs down what is already right [2].")
    ] = None,
    sampling: Annotated[
        str | None,
        typer.Option(help="shuffled (each image once per epoch) or balanced (classes equally often) [shuffled]."),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16 [auto].")] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=0.999999, help="Score and keep an average over about 1/(1-EMA) steps, e.g. 0.99; 0 is off [0]."
        ),
    ] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="Compile the model for training [no-compile].")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each training [1].")] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror at random [flip].")] = None,
    rotate_deg: Annotated[float | None, typer.Option(help="Largest random rotation [7].")] = None,
    zoom: Annotated[float | None, typer.Option(help="Largest random change of scale [0.1].")] = None,
    shift: Annotated[float | None, typer.Option(help="Largest random shift, share of the side [0.05].")] = None,
    brightness: Annotated[float | None, typer.Option(help="Largest random change of brightness [0.1].")] = None,
    contrast: Annotated[float | None, typer.Option(help="Largest random change of contrast [0.1].")] = None,
    pool: Annotated[
        str | None, typer.Option(help="avg, max, avgmax, gem or flatten before the classifier [avg].")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout before the classifier [0.1].")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="How a model learns: full, linear-probe, lp-ft, lwft?freeze=CUT, …; several, separated by commas, "
            "are compared: see docs/strategies.md [full]."
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Which trials are made: guided, exhaustive, hierarchical or halving, see docs/search.md [guided]."
        ),
    ] = None,
    skip: Annotated[
        str | None, typer.Option(help="Stages to leave out, e.g. probe,test: profile, probe, joint, confirm, test.")
    ] = None,
    warm_start: Annotated[
        bool | None,
        typer.Option(
            "--warm-start/--cold-start",
            help="With --policy guided: finalists begin with the joint network's weights, for fewer epochs [cold].",
        ),
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds, e.g. 0,1,2 [0].")] = None,
    profile_target: Annotated[str | None, typer.Option(help="Where latency is measured [onnxruntime-cpu].")] = None,
    profile_seconds: Annotated[float | None, typer.Option(help="Seconds of timing per cut and round [1].")] = None,
    pick: Annotated[str | None, typer.Option(help="smallest-within-interval, fastest-within-interval or best.")] = None,
    max_latency: Annotated[str | None, typer.Option(help="Train only cuts at most this slow, e.g. 5ms.")] = None,
    max_params: Annotated[
        str | None, typer.Option(help="Train only cuts with at most this many parameters, e.g. 2M.")
    ] = None,
    max_macs: Annotated[str | None, typer.Option(help="Train only cuts with at most this many MACs, e.g. 1G.")] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Loss of test AUROC from which on a cut counts as worse than the full network [0.02]."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    gpus: Annotated[
        str | None, typer.Option(help="Several GPUs of this machine, e.g. 0,1, instead of --device.")
    ] = None,
    executor: Annotated[str, typer.Option(help="local, or ray for a cluster: see docs/cluster.md.")] = "local",
    address: Annotated[str | None, typer.Option(help="With --executor ray: HOST:PORT, auto or local [local].")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Trainings side by side at most, as memory allows [cores; GPU: 4].")
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(min=0.0, help="Stop training after so long with the best front so far; the same command goes on."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the plan: its trainings, MACs, time and disk.")
    ] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show live progress.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the front and the choice as JSON.")] = False,
    **reading: Any,
) -> None:
    """Find where to cut: train, test and compare candidates.

    Scores them on held-out patients, and chooses the smallest that is as good.

    Only --backbone and --data are required. The same command resumes an interrupted run.
    """
    flags = dict(locals())
    flags |= flags.pop("reading")
    for name in _NO_SETTINGS:
        flags.pop(name)
    settings = build_settings(flags)

    from ttl_deploy import plugins
    from ttl_deploy.records import codec
    from ttl_deploy.runs.folder import RunFolder
    from ttl_deploy.search.findings import Found

    from .folds import print_folds, search_folds, settings_of_folds
    from .forecast import forecast_search
    from .progress import say, show_study
    from .report import write_report
    from .tables import describe_cost, print_front

    executors = plugins.import_part("ttl_deploy.search.executors", need="`ttl-deploy search`")
    study = plugins.import_part("ttl_deploy.search.study", need="`ttl-deploy search`")
    if out is None:
        out = default_folder(settings, hashlib.sha256(codec.to_json(settings).encode()).hexdigest()[:6])
    where = executors.Where(device=device, gpus=parse_gpus(gpus), address=address, workers=workers)
    if dry_run:
        if executor != "local":
            raise UsageError(f"--dry-run times this machine, so it cannot tell of --executor {executor}: leave one out")
        if folds is not None:
            settings = settings_of_folds(settings, folds)[0]
            say(f"the forecast is of one fold: all {folds} take about {folds} times as long")
        forecast_search(settings, out, where=where, progress=progress, as_json=as_json)
        return
    command = typed_command(context, sys.argv[1:])

    def search(wanted: "SearchSettings", into: RunFolder, hours: float | None) -> Found:
        with store_origins(context, into), show_study(into, command, enabled=progress) as reporter:
            done: Found = study.run_study(
                wanted, into, command=command, executor=executor, where=where, max_hours=hours, reporter=reporter
            )
        write_report(into)
        return done

    if folds is not None:
        pooled = search_folds(settings, out, folds, search, max_hours=max_hours)
        if pooled is not None and as_json:
            print(codec.to_json(pooled))
        elif pooled is not None:
            print_folds(pooled)
        return
    folder = RunFolder(out)
    found = search(settings, folder, max_hours)
    if as_json:
        print(codec.to_json(found))
        return
    print_front(found.front, found.choice)
    print(f"\n{describe_cost(folder)}\n")
    print(folder.next_steps.read_text(encoding="utf-8"), end="")


def default_folder(settings: "SearchSettings", digest: str) -> Path:
    """Name the run after backbone and data, with characters that every file system and shell takes."""
    data = Path(settings.data).resolve().stem if Path(settings.data).exists() else settings.data
    name = f"{settings.backbone}-{data}-{digest}"
    return Path("runs") / "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
