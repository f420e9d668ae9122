"""What lies before a rerun: everything is read and checked as the searches will, and the time estimated."""

from collections.abc import Sequence
from pathlib import Path

from experiments import Experiment
from plan import Plan, Search, network_of

from ttl_deploy.report.numbers import format_duration
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search.executors import Where
from ttl_deploy.search.forecast import make_forecast
from ttl_deploy.search.prospect import look_ahead
from ttl_deploy_cli.progress import say, show_stages


def tell_prospect(experiments: Sequence[Experiment], plan: Plan, out: Path) -> None:
    """Say what is left out, and how long the rest may take; raises what the searches would, before they begin."""
    for one in experiments:
        if one.left_out:
            say(f"{one.name}: not run, {one.left_out}")
        for entrant, why in one.cannot.items():
            say(f"{one.name}: without {entrant.backbone}, {why}")
    left = [search for search in plan.searches if not RunFolder(out / search.folder).front.is_file()]
    trainings = sum(len(one.settings.cuts) * len(one.settings.strategies) for one in plan.searches)
    say(f"{len(plan.searches)} searches with {trainings} trainings, {len(plan.searches) - len(left)} searches are done")
    if left:
        seconds = estimate(left, out)
        say(f"about {format_duration(seconds)} for the rest on this machine, as busy as it is now")


def estimate(searches: Sequence[Search], out: Path) -> float:
    """Return the seconds that searches may take.

    For every network the steps of one search are timed, that of the most MACs; the others of the same network take as
    much longer or shorter as they have MACs.
    """
    seen: set[str] = set()

    def note(text: str) -> None:
        if text not in seen:
            say(text)
        seen.add(text)

    with show_stages(enabled=True) as step:
        macs = {one.folder: look_ahead(one.settings, note=note, progress=step).exhaustive_macs for one in searches}
        total = 0.0
        for network in dict.fromkeys(network_of(one.settings.backbone) for one in searches):
            alike = [one for one in searches if network_of(one.settings.backbone) == network]
            largest = max(alike, key=lambda one: macs[one.folder])
            found = make_forecast(largest.settings, out / largest.folder, where=Where(), note=note, progress=step)
            total += found.time.seconds.most * sum(macs[one.folder] for one in alike) / macs[largest.folder]
    return total
