"""The networks that a run's analysis compares, rebuilt from the run folder: trained, untrained and random."""

from dataclasses import dataclass, replace

from ttl_deploy.analysis.features import Network
from ttl_deploy.errors import NoRunError
from ttl_deploy.models import truncation, weights
from ttl_deploy.models.cuts import list_cuts
from ttl_deploy.models.input_conventions import Feeding
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT
from ttl_deploy.records.models import Cut
from ttl_deploy.records.trials import Trial
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.training import devices
from ttl_deploy.training.beginning import strategy_of
from ttl_deploy.training.loop import WEIGHTS

RANDOM_SEEDS = (1_001, 1_002)
"""Of the random networks; far from the seeds that searches are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A finished trial: what it was, and its model."""

    trial: Trial
    network: Network


def load_trained(run: RunFolder, key: str) -> Trained:
    """Rebuild a finished trial's model; raises `NoRunError` where its files are gone."""
    trial = read_trial(run, key)
    model = truncation.build(trial.model)
    weights.load_weights(model, run.trial(key) / WEIGHTS)
    return Trained(trial=trial, network=_wrap(model, trial))


def read_trial(run: RunFolder, key: str) -> Trial:
    """Read what a finished trial was; raises `NoRunError` where its files are gone."""
    folder = run.trial(key)
    if not (folder / "trial.json").is_file() or not (folder / WEIGHTS).is_file():
        raise NoRunError(f"{folder} has no trained model (trial.json and {WEIGHTS}): it was moved or deleted")
    return codec.load(Trial, folder / "trial.json")


def build_start(trial: Trial) -> Network:
    """Build the network that a trial's finetuning changes, with the weights it is given before any training.

    These are the pretrained ones, or without any the trial's own random ones, changed as its strategy does. A trial
    that went on from a joint training, or was narrowed, is compared with what that had begun with, at full width.
    """
    own = replace(trial, model=trial.model.at_full_width)
    devices.seed_epoch(own.seed, 0)
    model = truncation.build(own.model)
    feeding = Feeding(file=own.weights_input, network=own.input)
    weights.load_pretrained(model, own.model, own.weights, feeding=feeding)
    if trial.start is None and not trial.model.layers and trial.strategy != JOINT:
        strategy_of(own).prepare(model, own.model)
    return _wrap(model, own)


def build_random(trial: Trial, seed: int) -> Network:
    """Build a trial's network with random weights, as its authors draw them; BatchNorm changes nothing then."""
    own = replace(trial, model=trial.model.at_full_width)
    devices.seed_epoch(seed, 0)
    return _wrap(truncation.build(own.model), own)


def cuts_of(trial: Trial) -> tuple[Cut, ...]:
    """List the cuts that a trial's model contains, its own last."""
    spec = trial.model
    known = list_cuts(spec.backbone, image_size=spec.image_size, classes=spec.classes, pool=spec.pool)
    depth = next(cut.depth for cut in known if cut.name == spec.cut)
    return tuple(cut for cut in known if cut.depth <= depth)


def _wrap(model: truncation.TruncatedModel, trial: Trial) -> Network:
    return Network(
        model=model.eval(),
        spec=trial.model,
        input=trial.input,
        cuts=frozenset(cut.name for cut in cuts_of(trial)),
    )
