"""The end of keeping a request's rows: they are in the way of the deletion that they were kept to prove."""

from ..errors import input_error, require_choice
from .ledger import Ledger
from .rows_store import RowsStore
from .state import ERASED, OPEN


def erase(ledger: Ledger, request_id: str, why: str) -> None:
    """No longer keep the rows of a request, and enter that; digests and history stay.

    Args:
        ledger: of the request.
        request_id: of a request that was carried out.
        why: for the ledger.

    Raises:
        ValueError: an unknown request, one that is open, or whose rows were erased before.
    """
    with ledger.locked():
        requests = ledger.state().requests
        require_choice("the request", request_id, requests)
        request = requests[request_id]
        if request.status == OPEN or not request.rows_kept:
            raise input_error(
                expected="a request that was carried out, with its rows",
                got=f"{request_id}, which is open" if request.status == OPEN else f"{request_id}, erased before",
                why="rows that are gone can no longer be deleted from the model",
                fix="hf-unlearn request run first" if request.status == OPEN else "nothing is left to do",
            )
        ledger.append(ERASED, {"request": request_id, "why": why})  # first: a row without an entry would be missed
        RowsStore(ledger).erase(request_id)
