"""How a model learns: one loop, strategies that say what is trained, evaluation, checkpoints."""
