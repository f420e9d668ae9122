"""Who opened a test split: what the register of this machine holds, and what a run knew of others when it did."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownOpening:
    """One line of the register: a run opened its test split.

    Attributes:
        test_sha256: digest over the sorted content hashes of the test images; all that is kept of the data.
        run_id: the run's own number, drawn when it opened the split; empty for runs that have none.
        run: path of the run folder.
        key: what opened it: `search`, or another command and the moment, as in the ledger.
        command: what was typed.
        time: UTC, ISO 8601.
    """

    test_sha256: str
    run_id: str
    run: str
    key: str
    command: str
    time: str

    @property
    def by(self) -> str:
        """The command's name."""
        return self.key.partition("-")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierOpenings:
    """`earlier_openings.json` of a run folder: what was known when its search opened the test split.

    `openings` are those of the same images by other runs, the oldest first; `note` says why some may be missing.
    """

    run_id: str
    test_sha256: str
    openings: tuple[KnownOpening, ...] = ()
    note: str = ""
