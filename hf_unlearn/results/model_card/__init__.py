"""The model card of a run, made from its record alone."""

from .card import render_card

__all__ = ["render_card"]
