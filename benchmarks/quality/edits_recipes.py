"""The recipes of edits_tofu.py: lists of phases, with the arguments that were found for TOFU's forget10."""

from typing import Any

from benchmarks.quality.levels import RECIPES as LOSSES

LEVELS = LOSSES["unseen_level"]

# name -> phases
RECIPES: dict[str, list[dict[str, Any]]] = {}
