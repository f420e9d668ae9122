"""The scripts of the papers' experiments, for all tests of them."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PAPERS = Path(__file__).resolve().parents[2] / "benchmarks" / "papers"
MODULES = (
    *("experiments", "plan", "prospect", "outcomes", "rules", "claims", "published", "page", "picture", "reproduce"),
    *("shared", "results", "scoring"),
)


@pytest.fixture(scope="module")
def papers() -> Any:
    """The scripts' modules, imported as when they are run, and forgotten afterwards."""
    before = list(sys.path)
    sys.path.insert(0, str(PAPERS))
    for name in MODULES:
        sys.modules.pop(name, None)
    import claims
    import experiments
    import outcomes
    import page
    import picture
    import plan
    import published
    import reproduce

    found: dict[str, ModuleType] = {
        one.__name__: one for one in (claims, experiments, outcomes, page, picture, plan, published, reproduce)
    }
    yield found
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.path[:] = before
