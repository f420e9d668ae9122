"""What all benchmarks share, from the folder above this one."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))

from results import store as store  # after the path on which it lies
from scoring import read_test as read_test  # as above
from scoring import score_test as score_test  # as above
from scoring import test_all as test_all  # as above
