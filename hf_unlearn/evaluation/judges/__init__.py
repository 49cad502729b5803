"""Judges say of an answer whether it shows the behaviour: by rules, by recital, a classifier, or a language model."""
