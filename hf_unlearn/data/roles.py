"""What rows are there for: the role of a row in a batch, and the names of the sets that rows come from."""

import enum

from ..errors import require_choice


class Role(enum.IntEnum):
    """Role of a row; rows of a batch stand in ascending order of it, forget rows first."""

    FORGET = 0
    RETAIN = 1
    ALTERNATE = 2  # another answer (a refusal, say) to a forget row's prompt
    MISMATCH = 3  # a retain row's answer placed under a forget row's prompt
    RETAIN_ALTERNATE = 4  # another answer (a refusal, say) to a retain row's prompt
    HOLDOUT = 5  # a row that the model has never seen, held where it is


# A set has a name, and only the rows of a training batch have roles: rows that are scored have none.
TRAIN_SETS = ("forget", "retain", "holdout")
SET_NAMES = (*TRAIN_SETS, "eval")  # "eval": a set that is only measured, whatever it is called

# The role of a set's alternate answers.
ALTERNATE_ROLES = {"forget": Role.ALTERNATE, "retain": Role.RETAIN_ALTERNATE}


def check_set_name(name: str) -> None:
    """Raise a ValueError unless `name` is a set's: it decides which row formats make sense."""
    require_choice("set_name", name, SET_NAMES)
