"""Ways to train all cuts as one network: how well each ranks the cuts by what they reach when trained alone.

Run:  python benchmarks/joint_training.py RUNS [--write]
      RUNS is a task's folder that `benchmarks/search_cost.py` has left, with an exhaustive and a guided search of
      the same data, such as runs/benchmark-search-cost/chest-X-rays-three-classes.
Every way is tried on two seeds, two side by side. "finalist" is the smallest exit that the validation split cannot
tell from the best exit. `--write` puts the table into docs/search-variants.md. Interrupted, it goes on.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from results import store
from search_cost import mean_scores, rank_correlation
from torch import Tensor

from ttl_deploy.data.cache import open_cache
from ttl_deploy.data.manifest_files import load_manifest
from ttl_deploy.evidence.front import build_front
from ttl_deploy.files import publish_text
from ttl_deploy.records import codec
from ttl_deploy.records.candidates import JOINT, Candidate
from ttl_deploy.records.models import FULL
from ttl_deploy.records.scores import Front
from ttl_deploy.records.trials import Profile, Trial
from ttl_deploy.runs.folder import RunFolder
from ttl_deploy.search import findings
from ttl_deploy.search.tasks import load_pixels
from ttl_deploy.training import joint
from ttl_deploy.training.loop import run_trial

DOCUMENT = Path(__file__).parent.parent / "docs" / "search-variants.md"
SEEDS = (0, 1)
Row = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A joint training: heads from the probe or random, weights of the losses, teaching, epochs, exits per step."""

    title: str
    probed: bool = True
    weights: tuple[float, float] = joint.EXIT_WEIGHTS
    teaching: float = 1.0
    epochs: int | None = None
    drawn: int | None = None
    settings: dict[str, float] = field(default_factory=dict)


WAYS = (
    Way(title="as it is: probe's heads, weights 0.3 to 1.7, teaching 1"),
    Way(title="the same without teaching", teaching=0.0),
    Way(title="the same, teaching 3", teaching=3.0),
    Way(title="weights 0.5 to 1.5, teaching 3", weights=(0.5, 1.5), teaching=3.0),
    Way(title="weights 1.5 to 0.5, teaching 3", weights=(1.5, 0.5), teaching=3.0),
    Way(title="three of five epochs", epochs=3),
    Way(title="shallowest, deepest and two drawn exits per step", drawn=2),
    Way(title="moving average of the weights, 0.95", settings={"ema": 0.95}),
    Way(title="random heads", probed=False),
    Way(title="random heads, weights 1, teaching 3", probed=False, weights=(1.0, 1.0), teaching=3.0),
    Way(title="random heads, weights 1.5 to 0.5, teaching 3", probed=False, weights=(1.5, 0.5), teaching=3.0),
)


def train(job: tuple[Path, Way, int]) -> tuple[Way, int, Row]:
    """Train one way from one seed; returns its validation curve and finalist."""
    parent, way, seed = job
    run = RunFolder(parent / "guided")
    cache = open_cache(load_manifest(run.data), run.settings().decode).path
    pixels = load_pixels(run, cache, ("train", "val"))
    given = codec.load(Trial, run.trial("all-exits__full__s0") / "trial.json")
    changes = {"joint_teaching": way.teaching, **way.settings} | ({"epochs": way.epochs} if way.epochs else {})
    trial = replace(given, seed=seed, train=replace(given.train, **changes))
    folder = parent / "joint-training" / f"{WAYS.index(way)}-s{seed}"
    loss = draw_exits(way.drawn, seed) if way.drawn else joint.joint_loss
    with mock.patch.object(joint, "EXIT_WEIGHTS", way.weights), mock.patch.object(joint, "joint_loss", loss):
        result = run_trial(
            trial,
            **pixels,
            folder=folder,
            device=torch.device("cpu"),
            start=run.probe_heads if way.probed else None,
        )
    front = front_of(run, folder, trial.model.exits)
    good = [point for point in front.points if point.to_best is None or point.to_best.high >= 0]
    curve = {point.cut: point.validation[0].value for point in front.points}
    return way, seed, {"curve": curve, "finalist": good[0].cut, "seconds": result.seconds}


def draw_exits(count: int, seed: int) -> joint.LossOf:
    """Return the joint loss of the shallowest, the deepest and `count` other exits, drawn at every step."""
    rng, loss = np.random.default_rng(seed), joint.joint_loss

    def drawn_loss(logits: Tensor, labels: Tensor, loss_of: joint.LossOf, *, teach: float) -> Tensor:
        last = logits.shape[1] - 1
        drawn = np.sort(rng.choice(np.arange(1, last), size=count, replace=False))
        return loss(logits[:, [0, *drawn.tolist(), last]], labels, loss_of, teach=teach)

    return drawn_loss


def front_of(run: RunFolder, folder: Path, exits: tuple[str, ...]) -> Front:
    """Build the front of a joint training's exits."""
    with np.load(folder / "predictions_val.npz", allow_pickle=False) as content:
        predicted = content["probabilities"]
    by_cut = {Candidate(cut, JOINT): {0: predicted[:, number]} for number, cut in enumerate(exits)}
    return build_front(codec.load(Profile, run.profile), by_cut, findings.labelled_split(run.data, "val"))


def compare(parent: Path) -> Iterator[Row]:
    """Yield a row per way, with the means over its seeds."""
    alone = mean_scores(RunFolder(parent / "exhaustive"), "full")
    jobs = [(parent, way, seed) for way in WAYS for seed in SEEDS]
    found: dict[str, dict[int, Row]] = {way.title: {} for way in WAYS}
    with get_context("spawn").Pool(2) as pool:
        for way, seed, row in pool.imap(train, jobs):
            found[way.title][seed] = row
            print(f"{way.title}, seed {seed}: finalist {row['finalist']}", flush=True)
    for title, rows in found.items():
        curves = [row["curve"] for row in rows.values()]
        yield {
            "way": title,
            "rank_correlations": [round(rank_correlation(curve, alone), 2) for curve in curves],
            "finalists": [row["finalist"] for row in rows.values()],
            "curve": {cut: round(float(np.mean([curve[cut] for curve in curves])), 3) for cut in alone},
            "alone": {cut: round(value, 3) for cut, value in alone.items()},
        }


def draw_table(rows: list[Row]) -> str:
    """Return the rows as Markdown, some cuts of the curve standing for all."""
    cuts = list(rows[0]["alone"])
    shown = [*cuts[: -1 : max(1, len(cuts) // 5)], FULL]
    lines = ["| joint training | rank correlation | finalist | " + " | ".join(shown) + " |"]
    lines += ["|---" * (3 + len(shown)) + "|"]
    lines += ["| each cut trained alone | | | " + " | ".join(f"{rows[0]['alone'][cut]:.3f}" for cut in shown) + " |"]
    for row in rows:
        values = " | ".join(f"{row['curve'][cut]:.3f}" for cut in shown)
        correlations = ", ".join(f"{one:.2f}" for one in row["rank_correlations"])
        lines += [f"| {row['way']} | {correlations} | {', '.join(row['finalists'])} | {values} |"]
    return "\n".join(lines)


def main() -> None:
    """Try all ways, and tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--write", action="store_true", help="write docs/search-variants.md")
    given = parser.parse_args()
    command = "python benchmarks/joint_training.py RUNS --write"
    started = time.perf_counter()
    rows = list(compare(given.runs))
    text = draw_table(rows)
    minutes = (time.perf_counter() - started) / 60
    print(f"{text}\n{minutes:.1f} minutes")
    store("joint_training", command, rows)
    if given.write:
        publish_text(
            DOCUMENT,
            f"""# Ways to train all cuts as one network

Written by `{command}` in {minutes:.0f} minutes, RUNS being what `benchmarks/search_cost.py` left of
the chest X-rays (three classes, 600 training images of 96 px, MobileNetV2 with ImageNet weights, five epochs); figures
and machine are in `benchmarks/results/joint_training.json`.

Validation AUROC, the mean of two seeds; Spearman's rank correlation with the cuts trained alone (means of two seeds),
for each seed of the joint training; the finalist is the smallest exit that the validation split cannot tell from the
best. With eleven cuts, of which the deeper half lie within .01 of each other, correlations above .9 do not differ for
certain.

{text}
""",
        )


if __name__ == "__main__":
    main()
