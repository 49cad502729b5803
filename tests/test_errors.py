"""The text of errors, and which numbers lie in a range."""

import math

import pytest

from hf_unlearn.errors import input_error, nearest, require_choice, require_range, value_error


def test_an_error_of_four_parts():
    error = input_error(expected="rows", got="none", why="nothing is learnt", fix="pass rows")
    assert str(error) == ("Expected rows.\nGot: none.\nWhy it matters: nothing is learnt.\nWhat to do: pass rows.")


def test_an_error_of_one_line():
    assert str(value_error("beta", "above 0", -1)) == "beta must be above 0, got -1"
    assert str(value_error("beta", "a number", "x", "pass 0.1")) == "beta must be a number, got 'x'; pass 0.1"


@pytest.mark.parametrize("value", [0.5, 1, 1e-9])
def test_numbers_within_bounds_pass(value):
    require_range("share", value, above=0, at_most=1)


@pytest.mark.parametrize("value", [0, 1.001, -1, math.nan, math.inf, True, "0.5", None])
def test_what_is_not_a_number_within_bounds_is_refused(value):
    with pytest.raises(ValueError) as error:
        require_range("share", value, above=0, at_most=1)
    assert str(error.value) == f"share must be a finite number above 0 and at most 1, got {value!r}"


def test_bounds_that_are_included_and_excluded():
    require_range("beta", 0, at_least=0, below=1)
    for value in (1, -1e-9):
        with pytest.raises(ValueError, match="at least 0 and below 1"):
            require_range("beta", value, at_least=0, below=1)
    for value in (math.inf, -math.inf):
        with pytest.raises(ValueError, match="x must be a finite number, got"):
            require_range("x", value)


def test_whole_numbers():
    require_range("seed", 3, at_least=0, whole=True)
    with pytest.raises(ValueError, match=r"seed must be a whole number of at least 0, got 3\.0"):
        require_range("seed", 3.0, at_least=0, whole=True)


def test_a_choice_names_what_is_spelled_alike():
    require_choice("task", "harmful", ("harmful", "privacy"))
    with pytest.raises(ValueError) as error:
        require_choice("task", "harmfull", ("privacy", "harmful"))
    assert str(error.value) == (
        "task must be a known name, got 'harmfull'; did you mean 'harmful'? Known names: harmful, privacy"
    )
    with pytest.raises(ValueError, match="got None; use one of: a, b"):
        require_choice("task", None, ("b", "a"))


def test_a_long_list_of_names_is_left_out_beside_a_near_one():
    names = [f"argument_{i}" for i in range(60)]
    assert nearest("argument_61", names).startswith("did you mean ") and "Known" not in nearest("argument_61", names)
