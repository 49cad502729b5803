"""What a run's record says to the person who asked for the deletion, in plain sentences without any row."""

from .deletion_record import PERTURBED, DeletionRecord
from .evaluation_result import EvaluationResult
from .record import RunRecord
from .verdict import verdict

HEADING = "For the person who asked"
NOT_SHOWN = (
    "It does not show that no trace is left in the weights. A stronger attack, or more training on related texts, may "
    "bring something back; copies of the model from before are not touched; and it is no proof before a court or an "
    "authority that data was erased."
)


def deletion_words(record: RunRecord) -> list[tuple[str, str]]:
    """What was asked, what was done, how it was checked and what that does not show; empty for other runs."""
    if record.deletion is None:
        return []
    return [
        ("What was asked", _asked(record.deletion)),
        ("What was done", _done(record)),
        ("How it was checked", _checked(record)),
        ("What this does not show", NOT_SHOWN),
    ]


def _asked(deletion: DeletionRecord) -> str:
    named = f" in {_count(len(deletion.requests), 'request')} ({', '.join(deletion.requests)})"
    asked = f"That the model no longer knows {_count(deletion.rows, 'row')}{named if deletion.requests else ''}."
    if deletion.held:
        rows = _count(deletion.held_rows, "row")
        asked += f" Of earlier requests ({', '.join(deletion.held)}), {rows} had to stay forgotten."
    return asked


def _done(record: RunRecord) -> str:
    deletion = record.deletion
    assert deletion is not None
    methods = ", ".join(record.methods) or "no method that the record names"
    said = f"The present model was changed with {methods}, in {record.steps:,} steps, and saved as another model. "
    if record.levels is not None:
        said += "Each row was led to the loss that a model which never saw it would give it, and not beyond. "
    said += f"Rows to keep that were trained on beside it: {deletion.kept:,}"
    return said + (f"; left out, since they are to be deleted: {deletion.left_out:,}." if deletion.left_out else ".")


def _checked(record: RunRecord) -> str:
    after = record.evaluations.get("after")
    if after is None:
        return "It was not measured: nothing here says whether the rows are forgotten."
    against = "rows of the same kind that the model has never seen"
    assert record.deletion is not None
    if record.deletion.holdout == PERTURBED:
        against = "stand-ins for rows never seen, made from rows to keep, so that these figures are approximate"
    elif record.deletion.holdout is None:
        against = "no rows that the model has never seen, as none were given"
    said = f"The model was measured before and after on the rows, against {against}. "
    said += " ".join(line for line in (_loss(record), _membership(after)) if line)
    attacked = "It was also attacked (see Attacks)." if record.attack_report else "It was not attacked."
    answers = " ".join(f"{one.question} {one.word.capitalize()} ({one.figure})." for one in verdict(record).answers)
    return f"{said} {attacked} The verdict of the figures: {answers}"


def _loss(record: RunRecord) -> str:
    before, after = record.evaluations.get("before"), record.evaluations["after"]
    figure = after.metrics.get("forget_nll")
    if figure is None:
        return ""
    said = f"The mean loss of the rows is {figure.value:.2f} nats per token"
    if before is not None and "forget_nll" in before.metrics:
        said += f" (before: {before.metrics['forget_nll'].value:.2f})"
    if "holdout_nll" in after.metrics:
        said += f"; that of rows never seen is {after.metrics['holdout_nll'].value:.2f}"
    return f"{said}."


def _membership(after: EvaluationResult) -> str:
    figure = after.metrics.get("min_k_auc")
    if figure is None:
        return ""
    interval = (
        "" if figure.low is None or figure.high is None else f" (95% interval {figure.low:.2f} to {figure.high:.2f})"
    )
    return (
        f"Who has to tell the rows from rows never seen by the model's losses (min-k) is right in {figure.value:.2f} "
        f"of pairs{interval}; .5 is a guess."
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
