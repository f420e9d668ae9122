"""A plug-in for ttl-deploy: reads `.imagelist` files, and searches every other cut.

An `.imagelist` file has a line per image: its path, its class, its patient, with tabs between.
"""

from collections.abc import Sequence
from pathlib import Path

from ttl_deploy.errors import LabelError
from ttl_deploy.plugins import Progress, RawData, RawSample
from ttl_deploy.records.data import Reading


class ImagelistReader:
    """Reads the images that an `.imagelist` file names."""

    def recognises(self, data: str) -> bool:
        """Accept files by their suffix."""
        return data.endswith(".imagelist") and Path(data).is_file()

    def read(self, data: str, reading: Reading, *, progress: Progress | None = None) -> RawData:
        """Return a row per line; raises `LabelError` with the number of a line that has not three parts."""
        path = Path(data).resolve()
        samples = []
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            parts = line.split("\t")
            if len(parts) != 3:
                raise LabelError(f"{path}, line {number}: {len(parts)} parts; give path, class and patient, with tabs")
            image, label, patient = parts
            samples.append(RawSample(path=image, label=label, patient_id=patient))
        root = Path(reading.image_root).resolve() if reading.image_root else path.parent
        return RawData(name=path.stem, root=root, samples=tuple(samples))


class EveryOther:
    """Trains every other cut, the full network first; for a quick look at many cuts."""

    def propose(self, state):  # type: ignore[no-untyped-def] # its types are of the wing with torch
        """Return what is not trained yet of every other cut, from the deepest; nothing ends the search."""
        wanted: Sequence[str] = [cut.name for cut in reversed(state.cuts)][::2]
        trials = [
            state.trial_of[cut, strategy, seed]
            for cut in wanted
            for strategy in state.strategies
            for seed in state.seeds
        ]
        from ttl_deploy.search.policies import Proposal

        return [Proposal(trial=trial) for trial in trials if trial.key not in state.outcomes]
