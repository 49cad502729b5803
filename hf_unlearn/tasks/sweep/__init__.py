"""Sweeps: many runs of one recipe with values that optuna draws, and the best of them run again for a report.

optuna is used directly: Trainer's own `hyperparameter_search` keeps one trainer in one process, compares by what
its evaluation loop logs (no answers, no judge, no oracle), and cannot go on after a kill.
"""
