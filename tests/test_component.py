"""What every component checks by the declared types of its arguments, and where it says that it does not work."""

import math
from dataclasses import dataclass
from typing import Any

import pytest

from fixtures.examples import assert_four_parts, assert_one_line
from hf_unlearn.component import Component, TrainingSetup, require_supported
from hf_unlearn.steps.weighting import Weighting
from hf_unlearn.training.method_specs import method_to_dict, spec_to_data, weighting_of


@dataclass(frozen=True)
class Example(Component):
    ratio: float = 1.0
    count: int = 1
    kind: str = "a"
    exact: bool = True
    size: "float" = 2.0  # as a module with postponed annotations has it
    table: dict[str, Any] | None = None
    limit: float | None = None
    start: "int | str" = 0

    name = "example"
    formula = "ratio * count"
    incompatible_with = {TrainingSetup.FSDP: "its table is whole"}


@dataclass(frozen=True)
class Halving(Weighting):
    """w_r <- w_r / 2."""

    name = "halving"
    formula = "w_r <- w_r / 2"

    def updated(self, retain_weight: float, retain_loss: float) -> float:
        return retain_weight / 2


@pytest.mark.parametrize(
    ("argument", "values", "expected"),
    [
        ("ratio", [True, "1", None, math.nan], "a number"),
        ("size", [True, "1", None, math.nan], "a number"),
        ("count", [True, 1.0, "1", None, math.nan], "a whole number"),
        ("kind", [1, None, True], "a text"),
        ("exact", [1, None, "True"], "True or False"),
        ("limit", [True, "1", math.nan], "a number or None"),
        ("start", [1.5, None], "a whole number or a text"),
    ],
)
def test_an_argument_of_another_type_is_refused(argument, values, expected):
    for value in values:
        with pytest.raises(ValueError) as error:
            Example(**{argument: value})
        assert_one_line(str(error.value), f"{argument} of example must be {expected}", repr(value), "ratio * count")


def test_what_fits_passes():
    Example(ratio=3, count=-2, kind="", exact=False, size=math.inf, table={"a": 1}, limit=2, start="end")


def test_a_setup_that_it_does_not_work_in_is_named():
    require_supported([Example()], [TrainingSetup.LORA])
    with pytest.raises(ValueError, match="example under FSDP") as error:
        require_supported([Example()], [TrainingSetup.LORA, TrainingSetup.FSDP])
    assert_four_parts(str(error.value), "its table is whole")


def test_a_weighting_of_the_users_own():
    own = Halving()
    assert weighting_of(own) is own and own.moves and own.updated(1.0, 5.0) == 0.5
    assert spec_to_data(own) == method_to_dict(own) == {"name": "halving"}


def test_a_component_without_a_name_is_an_error_of_its_author():
    @dataclass(frozen=True)
    class Nameless(Component):
        ratio: float = 1.0

    with pytest.raises(TypeError, match="Nameless needs a class attribute `name`"):
        Nameless()


def test_a_formula_may_be_missing():
    @dataclass(frozen=True)
    class Own(Component):
        ratio: float = 1.0
        name = "own"

    with pytest.raises(ValueError, match=r"ratio of own must be a number, got 'x'$"):
        Own(ratio="x")
