"""A small package that adds a loss, a step wrapper, an attack, a metric, a suite, a task and more to hf_unlearn."""
