"""UnlearningTrainer and what it holds: configuration, objective, step, reference, hooks and launch."""
