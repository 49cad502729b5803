"""What a run that carries out deletion requests was asked for, as its record keeps it: counts and ids, no row."""

from dataclasses import dataclass, field

GIVEN, PERTURBED = "given", "perturbed"  # where the holdout rows came from

APPROXIMATE = (
    "No rows that the model has never seen were given. Stand-ins were made from rows to keep, with names and numbers "
    "exchanged: levels, membership figures and attacks that are set against them are approximate"
)


@dataclass
class DeletionRecord:
    """Deletion requests of a run.

    Attributes:
        rows: how many were to be deleted, held ones not counted.
        requests: ids of the requests that were carried out; empty where the run was not told any.
        held: ids of earlier requests whose rows were held at their level.
        held_rows: how many rows these are.
        left_out: rows to keep that were left out since a request asks for them.
        kept: rows to keep that were trained on.
        holdout: where the unseen rows came from: "given", "perturbed" or None where there were none.
    """

    rows: int
    requests: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    held_rows: int = 0
    left_out: int = 0
    kept: int = 0
    holdout: str | None = None

    @property
    def warnings(self) -> list[str]:
        """What a reader must know of the rows that it was measured against."""
        return [APPROXIMATE + "."] if self.holdout == PERTURBED else []
