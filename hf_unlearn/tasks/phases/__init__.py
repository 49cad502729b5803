"""Runs of several phases: edits, trainings and suppressions, one after another, with one record and one card."""
