"""A small package that adds a loss, a step wrapper, a weighting, a metric, a suite and a task to hf_unlearn."""
