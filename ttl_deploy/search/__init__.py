"""Which models to train, in which order, and what was found: profile, policies, executors, study."""
