"""`ttl-deploy cuts`: where a backbone can be cut, what is left, and how fast that is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ttl_deploy.records.models import Cut
    from ttl_deploy.records.trials import Profile

NAME = "cuts"


def run(
    backbone: Annotated[str, typer.Option(help="Backbone by its torchvision name.")],
    image_size: Annotated[int, typer.Option(help="Side of the square image in pixels.")] = 224,
    classes: Annotated[int, typer.Option(min=2, help="Classes of the head.")] = 2,
    pool: Annotated[str, typer.Option(help="avg, max, avgmax, gem or flatten before the classifier.")] = "avg",
    cuts: Annotated[str, typer.Option(help="stages, all, or names separated by commas.")] = "all",
    latency: Annotated[bool, typer.Option("--latency", help="Measure every cut on this machine, once.")] = False,
    target: Annotated[str, typer.Option(help="Where latency is measured.")] = "onnxruntime-cpu",
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    seconds: Annotated[float, typer.Option(help="Seconds of timing per cut, shared out among three rounds.")] = 3.0,
    measure_again: Annotated[
        bool, typer.Option("--measure-again", help="Measure anew what was measured before.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw shares of the full network by depth: FILE.svg, .png or .pdf.")
    ] = None,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="Show live progress.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """List where a backbone can be cut, and what each cut costs.

    Parameters, MACs, their share of the full network, and feature shape.

    With --latency each cut is exported with random weights and timed; what was measured is kept, also when
    interrupted, and `ttl-deploy search` uses it.
    """
    import json

    import msgspec

    from ttl_deploy import plugins
    from ttl_deploy.records import codec
    from ttl_deploy.records.models import FULL

    from .settings import parse_cuts
    from .tables import print_cuts

    _check(pool=pool, target=target, image_size=image_size, seconds=seconds)
    figure = _figure(plot) if plot else None
    models = plugins.import_part("ttl_deploy.models.cuts", need="`ttl-deploy cuts`")
    known = models.list_cuts(backbone, image_size=image_size, classes=classes, pool=pool)
    # Latencies are told as shares of the full network's.
    wanted = models.resolve_cuts([*parse_cuts(cuts), *([FULL] if latency else [])], known)
    profile = None
    if latency:
        specs = _specs(wanted, backbone=backbone, image_size=image_size, classes=classes, pool=pool)
        plan = {"target": target, "threads": threads, "seconds": seconds}
        profile = _measure(wanted, specs, plan, measure_again=measure_again, progress=progress)
    if figure and plot:
        _draw(figure, plot, wanted, profile, title=f"{backbone} at {image_size} px", image_size=image_size)
    listed = [msgspec.to_builtins(cut) for cut in wanted]
    if as_json:
        print(json.dumps({"cuts": listed, "profile": codec.to_builtins(profile)} if profile else listed, indent=2))
    elif profile:
        _print_profile(profile, title=f"{backbone} at {image_size} px, {classes} classes, head included")
    else:
        print_cuts(wanted, backbone=backbone, image_size=image_size, classes=classes)


def _check(*, pool: str, target: str, image_size: int, seconds: float) -> None:
    from typing import get_args

    from ttl_deploy import plugins
    from ttl_deploy.errors import UnknownNameError, UsageError
    from ttl_deploy.records.models import Pool

    for kind, given, allowed in (("pool", pool, get_args(Pool)), ("target", target, plugins.names("targets"))):
        if given not in allowed:
            raise UnknownNameError(kind, given, allowed)
    if not 8 <= image_size <= 2048:
        raise UsageError(f"--image-size {image_size}: give 8 to 2048 pixels")
    if not 0 < seconds <= 3600:
        raise UsageError(f"--seconds {seconds:g}: give more than 0 and at most 3600")


def _figure(path: Path) -> Any:
    """Load the part that draws, before anything takes time."""
    from ttl_deploy import plugins

    figure = plugins.import_part("ttl_deploy.report.depth_figure", need="--plot")
    figure.check_path(path)
    return figure


def _draw(
    figure: Any, path: Path, wanted: "Sequence[Cut]", profile: "Profile | None", *, title: str, image_size: int
) -> None:
    from ttl_deploy.search.profile import describe_costs

    from .progress import say

    rows = profile.cuts if profile else tuple(describe_costs(cut) for cut in wanted)
    figure.write_figure(path, rows, title=title, measured_on=_measured_on(profile), image_size=image_size)
    say(f"wrote {path}")


def _measured_on(profile: "Profile | None") -> str:
    if profile is None:
        return ""
    threads = f"{profile.threads} thread{'s' if profile.threads != 1 else ''}"
    return f"{profile.runtime}, {profile.precision}, one image, {threads}, {profile.machine}"


def _specs(wanted: "Sequence[Cut]", **settings: Any) -> dict[str, Any]:
    from ttl_deploy.records.models import ModelSpec

    return {cut.name: ModelSpec(cut=cut.name, **settings) for cut in wanted}


def _measure(
    wanted: "Sequence[Cut]", specs: dict[str, Any], plan: dict[str, Any], *, measure_again: bool, progress: bool
) -> "Profile":
    from ttl_deploy.errors import RunInterruptedError
    from ttl_deploy.search.profile import describe_profile, profile_cuts
    from ttl_deploy.search.profile_key import ProfilePlan

    from .progress import say, show_stages

    rounds = ProfilePlan().rounds
    try:
        with show_stages(enabled=progress) as step:
            found = profile_cuts(
                wanted,
                specs,
                plan=ProfilePlan(**plan | {"seconds": plan["seconds"] / rounds}, rounds=rounds),
                progress=step,
                measure_again=measure_again,
            )
    except RunInterruptedError as error:
        remedy = "the same command (without --measure-again) goes on from there"
        raise RunInterruptedError(f"{error}; {remedy}", signal_number=error.exit_code - 128) from None
    for line in describe_profile(found):
        say(line)
    return found


def _print_profile(profile: "Profile", *, title: str) -> None:
    """Print costs and measured latencies, shallow to deep; an equals sign marks a tie with the row above."""
    from ttl_deploy.evidence.choice import is_tie

    from .tables import print_table

    full_s = profile.cuts[-1].latency_s
    rows = [
        (
            row.cut,
            f"{row.params:,}",
            f"{row.params_share:.1%}",
            f"{row.macs / 1e9:.4g}",
            f"{row.macs_share:.1%}",
            "not measured" if row.latency_s is None else f"{1e3 * row.latency_s:.2f}",
            "" if row.latency_noise_s is None else f"{1e3 * row.latency_noise_s:.2f}",
            "" if row.latency_s is None or not full_s else f"{row.latency_s / full_s:.1%}",
            "=" if above and is_tie(row, above) else "",
            f"{row.size_bytes / 1e6:.2f}",
            "stage" if row.stage else "",
        )
        for above, row in zip((None, *profile.cuts), profile.cuts, strict=False)
    ]
    columns = ("cut", "params", "of full", "GMACs", "of full", "ms", "noise", "of full", "", "file MB", "")
    print_table(columns, rows, title=title)
    print(
        f"Latency: {profile.runtime} on {profile.machine}, {profile.precision}, one image, {profile.threads} "
        f"thread{'s' if profile.threads != 1 else ''}; median of three fresh processes.\nNoise is the spread between "
        "them; = is a tie with the row above: the difference is within the noise."
    )
