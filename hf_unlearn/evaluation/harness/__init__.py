"""Tasks of lm-evaluation-harness as suites: its own tasks, and multiple-choice tasks made offline."""
