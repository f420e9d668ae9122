"""How much a command says on stderr: results and errors alone, the usual progress, or everything."""

import logging
import sys
import warnings

QUIET, USUAL, VERBOSE = -1, 0, 1
_level = USUAL


def choose_level(level: int) -> None:
    """Set what the process says from now on; in `VERBOSE`, also what libraries log and warn of."""
    global _level
    _level = level
    if level == QUIET:
        warnings.simplefilter("ignore")
    if level == VERBOSE:
        warnings.simplefilter("default")
        logging.captureWarnings(True)
        form = logging.Formatter("%(levelname)s %(name)s: %(message)s")
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(form)
        root = logging.getLogger()
        root.addHandler(handler)
        root.setLevel(logging.INFO)


def is_quiet() -> bool:
    """Tell whether only results and errors are wanted."""
    return _level == QUIET
