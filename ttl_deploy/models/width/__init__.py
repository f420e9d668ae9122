"""Width: which channels of a truncated model go, and the structure that is left."""
