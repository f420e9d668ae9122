"""What ends the script on the board, and how it speaks; Python 3.8 and the standard library only, like all here."""

from __future__ import annotations

import sys

USAGE, GATE, ABSENT, STORAGE = 2, 4, 6, 74


class RefusedError(Exception):
    """Ends the script with an exit code and a sentence: what happened, and what to do."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def say(sentence: str) -> None:
    """Print a line for people on stderr."""
    print(sentence, file=sys.stderr, flush=True)
