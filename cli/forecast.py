"""What `ttl-deploy search --dry-run` shows: the plan, its price, how long it may take, what it writes."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .tables import print_table

if TYPE_CHECKING:
    from ttl_deploy.records.forecast import DiskForecast, Forecast, Span
    from ttl_deploy.records.trials import SearchSettings
    from ttl_deploy.search.executors import Where


def forecast_search(settings: "SearchSettings", out: Path, *, where: "Where", progress: bool, as_json: bool) -> None:
    """Print what a search into `out` would do; nothing is trained, and the folder is not touched."""
    from ttl_deploy import plugins
    from ttl_deploy.records import codec

    from .progress import say, show_stages

    part = plugins.import_part("ttl_deploy.search.forecast", need="`ttl-deploy search --dry-run`")
    with show_stages(enabled=progress) as step:
        found = part.make_forecast(settings, out, where=where, note=say, progress=step)
    if as_json:
        print(codec.to_json(found))
    else:
        print_forecast(found)


def print_forecast(found: "Forecast") -> None:
    """Print a forecast: a line per stage, then what all of it takes."""
    print(f"policy {found.policy}, {len(found.cuts)} cuts; " + _count_images(found.images))
    rows = [
        (
            stage.stage,
            _count(stage.trainings) if stage.trainings.most else "",
            _multiply(stage.macs, found.full_macs) if stage.macs.most else "",
            stage.told,
        )
        for stage in found.stages
    ]
    print_table(("stage", "trainings", "× full", "of what"), rows, numeric=(False, True, True, False))
    for line in _summarise(found):
        print(line)


def _summarise(found: "Forecast") -> Iterator[str]:
    from ttl_deploy.report.numbers import format_quantity, format_share

    macs = _between(found.macs, lambda value: format_quantity(value, "MACs"))
    yield f"trainings  {_count(found.trainings)}"
    yield f"MACs       {macs}"
    yield f"           = {_multiply(found.macs, found.full_macs)} trainings of the full network"
    share = _between(found.macs, lambda value: format_share(value / found.exhaustive_macs), word=False)
    yield f"           = {share} of every cut by every strategy on every seed"
    yield f"time       {_tell_time(found)}"
    yield from _tell_parts(found)
    yield from _tell_disk(found.disk)
    if found.patience:
        yield f"At least: every training stops as early as --patience {found.patience} lets it."
    yield "× full: how many trainings of the full network would cost as many MACs."
    yield "The time is an estimate from steps timed just now, on a machine as busy as now."
    if found.resumes:
        yield f"{found.disk.run_folder} holds a search, which goes on there; this is the forecast of all of it."
    yield "Nothing was trained. To begin, type it without --dry-run."


def _tell_time(found: "Forecast") -> str:
    time = found.time
    return (
        f"about {_between(time.seconds, _round_duration, word=False)} on this machine "
        f"({time.device}, {time.precision}, {time.workers} side by side)"
    )


def _tell_parts(found: "Forecast") -> Iterator[str]:
    time = found.time
    parts = {"decoding images": time.decoding_s, "timing cuts": time.profile_s, "the probe": time.probe_s}
    if told := [f"{_round_duration(seconds)} {what}" for what, seconds in parts.items() if seconds >= 1]:
        yield f"           of it {', '.join(told)}"
    steps = ((time.deepest, time.image_s), (time.shallow, time.shallow_image_s))
    yield f"           a training image: {', '.join(f'{cut} {1e3 * seconds:.3g} ms' for cut, seconds in steps)}"


def _tell_disk(disk: "DiskForecast") -> Iterator[str]:
    from ttl_deploy.report.numbers import format_bytes

    cache = format_bytes(disk.cache) if disk.cache else "nothing, images are decoded already"
    yield f"disk       cache {cache}; trials {_between(disk.trials, format_bytes)}"
    yield f"           and up to {format_bytes(disk.checkpoints)} of checkpoints meanwhile"
    if disk.shortage:
        yield f"WARNING    not enough disk: {disk.shortage}"


def _between(span: "Span", write: Callable[[float], str], *, word: bool = True) -> str:
    """Write a span, by one figure where its ends read the same."""
    low, high = write(span.least), write(span.most)
    if low == high:
        return high
    return f"at least {low}, at most {high}" if word else f"{low} to {high}"


def _count(span: "Span") -> str:
    low, high = int(span.least), int(span.most)
    return str(high) if low == high else f"{low} to {high}"


def _multiply(span: "Span", unit: float) -> str:
    return _between(span, lambda value: f"{value / unit:.2f}", word=False)


def _count_images(images: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in images.items()) + " images"


def _round_duration(seconds: float) -> str:
    """Write a duration no more precisely than an estimate is."""
    from ttl_deploy.report.numbers import format_duration

    for least, step in ((7200, 600), (600, 60), (60, 10), (0, 1)):
        if seconds >= least:
            return format_duration(step * max(1, round(seconds / step)))
    return format_duration(seconds)
