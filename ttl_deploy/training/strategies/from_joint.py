"""Finetuning of a cut that begins with the weights of its exit from the joint network, head included.

With `--warm-start` the guided search trains its finalists so, for fewer epochs than from the backbone's own weights.
What that gained and lost is in docs/search.md.
"""

from ttl_deploy.training.strategies.full import FullFinetuning

EPOCH_SHARE = 0.6
"""Of the epochs that a training from the backbone's weights gets, rounded up."""


class FromJoint(FullFinetuning):
    """Train everything; the search shortens the training, and trains the joint network before."""

    warm = True
