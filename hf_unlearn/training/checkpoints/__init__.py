"""Checkpoints and the output folder of a run: whole or absent, one run at a time, compared before they are resumed."""
