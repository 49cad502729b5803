"""The model card of a run, made from its record. Nothing is measured, and nothing is sent."""

from .card import render_card

__all__ = ["render_card"]
