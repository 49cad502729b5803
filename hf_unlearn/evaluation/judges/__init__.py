"""Judges say of an answer whether it shows the behaviour: by rules, by recital, or by a trained classifier."""
