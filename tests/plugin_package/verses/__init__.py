"""A small package that adds a loss, a step wrapper, an attack, an edit, a metric, a suite and more to hf_unlearn."""
