"""The losses as a text for people: name, formula, arguments with defaults, needs, paper. It computes nothing."""

import dataclasses
from collections.abc import Mapping

from .base import Loss, Needs


def render_methods(tables: Mapping[str, Mapping[str, type[Loss]]]) -> str:
    """Every loss of every table, grouped under the table's title."""
    blocks = []
    for title, losses in tables.items():
        blocks.append(
            f"{title.upper()} (in the notation of the docs: lp_t a token's log-prob, NLL a row's sum, nll its mean)"
        )
        blocks += [_render(loss) for loss in losses.values()]
    return "\n\n".join(blocks)


def _render(loss: type[Loss]) -> str:
    arguments = [f"{field.name}={field.default}" for field in dataclasses.fields(loss)]
    lines = [
        f"{loss.name}  ({loss.__name__}, mean over {'answer tokens' if loss.unit == 'token' else 'rows'})",
        f"  formula    {loss.formula}",
        f"  arguments  {', '.join(arguments)}",
        f"  needs      {_needs(loss.needs)}",
        f"  paper      {loss.paper}",
    ]
    return "\n".join(lines)


def _needs(needs: Needs) -> str:
    words = ["forget rows", *(f"{role.name.lower()} rows" for role in sorted(needs.roles))]
    if needs.reference_logps:
        words.append("reference log-probs of " + " and ".join(r.name.lower() for r in sorted(needs.reference_logps)))
    if needs.reference_logits:
        words.append(
            "the reference's distributions on " + " and ".join(r.name.lower() for r in sorted(needs.reference_logits))
        )
    return "; ".join(words)
