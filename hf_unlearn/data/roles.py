"""What a row of a batch is there for. The order is the order of the rows in every batch."""

import enum


class Role(enum.IntEnum):
    """Role of a row; rows of a batch stand in ascending order of it, forget rows first."""

    FORGET = 0
    RETAIN = 1
    ALTERNATE = 2  # another answer (a refusal, say) to a forget row's prompt
    MISMATCH = 3  # a retain row's answer placed under a forget row's prompt
    RETAIN_ALTERNATE = 4  # another answer (a refusal, say) to a retain row's prompt
