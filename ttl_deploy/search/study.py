"""One search from data to choice: every stage leaves its result on the disk, so the same call resumes."""

import time
from contextlib import closing
from dataclasses import replace

from ttl_deploy import plugins
from ttl_deploy.errors import OutOfTimeError
from ttl_deploy.records.trials import SearchSettings
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import environment, findings
from ttl_deploy.search.caches import Caches
from ttl_deploy.search.candidates import check_phases, find_cuts, make_trials
from ttl_deploy.search.conclusion import conclude, confirm, forget_early_choice, stop_early
from ttl_deploy.search.context import Reporter, Study
from ttl_deploy.search.executors import Where
from ttl_deploy.search.findings import Found
from ttl_deploy.search.preparation import count_images, find_costs, read_data
from ttl_deploy.search.rounds import train
from ttl_deploy.search.variants import check_variants
from ttl_deploy.search.varying import train_variants

_HOUR_S = 3600.0


def run_study(
    settings: SearchSettings,
    run: RunFolder,
    *,
    command: str,
    executor: str = "local",
    where: Where | None = None,
    max_hours: float | None = None,
    reporter: Reporter,
) -> Found:
    """Search, or go on with the search that lies in `run`; returns the front with test scores, and the choice.

    `executor` is a name of its table, and `where` on what it trains. On the same kind of device results depend on
    neither. After
    `max_hours` it stops with the best front so far, and the test split closed.

    Raises `TtlDeployError` for what the user must mend; everything done before is kept.
    """
    began_s = time.monotonic()
    check_names(settings)
    opened, device = plugins.load("executors", executor).open(where or Where())
    study = Study(
        settings=settings,
        run=run,
        command=command,
        device=device,
        executor=opened,
        reporter=reporter,
        deadline_s=None if max_hours is None else began_s + _HOUR_S * max_hours,
    )
    with closing(study.executor), run.owned():
        resumed = not run.claim(settings, command)
        feeding = environment.check_environment(run, settings, study.device)
        if resumed:
            forget_early_choice(run)
            reporter.note(f"resuming {run.path}: {len(findings.outcomes(run))} trials are done")
        manifest = read_data(study)
        classes = len(manifest.classes)
        cuts = find_cuts(settings, classes=classes)
        trials = make_trials(settings, cuts, classes=classes, feeding=feeding, multilabel=manifest.multilabel)
        environment.check_weights(run, settings, cuts, note=reporter.note)
        specs = [trials[cut.name, settings.strategies[0], settings.seeds[0]].model for cut in cuts]
        wanted, manifest = find_costs(study, manifest, cuts, specs)
        images = count_images(manifest)
        caches = Caches(manifest=manifest, decode=settings.decode, progress=reporter.step, note=reporter.note)
        caches.of(settings.decode.image_size)
        try:
            known = train(study, wanted, trials, caches, images=images)
            known = train_variants(study, known, caches, images=images)
        except OutOfTimeError:
            return stop_early(study)
        return conclude(study, confirm(replace(study, deadline_s=None), known, caches, images=images))


def check_names(settings: SearchSettings) -> None:
    """Refuse names that are not known, before the folder is touched; the number of classes does not count here."""
    find_cuts(settings, classes=2)
    plugins.load("policies", settings.policy)
    plugins.load("targets", settings.profile_target)
    check_phases(settings)
    check_variants(settings)
