"""Search spaces: those that are packaged, files of one's own, and what is refused of them."""

import pytest

from hf_unlearn.losses import FORGET_LOSSES
from hf_unlearn.steps import STEP_WRAPPERS
from hf_unlearn.tasks.recipe_files import find_recipe, packaged_recipes, read_recipe
from hf_unlearn.tasks.sweep.space import SPACES, read_space, value_at, with_values

DEFAULTS = {"anchor_loss": None, "step_wrappers": None, "weighting": None, "optim": "adamw_torch"}
METHODS = [name for name in packaged_recipes() if name.startswith("methods/")]
# Their parameters are layers and seeds alone, or they have none.
WITHOUT_SPACE = {"ceu", "flat", "grad_ascent", "idk", "ihl", "jsd", "logit_margin", "max_entropy", "distil", "surgery"}


def known(name="methods/npo", **changed):
    return {"anchor_weight": 1.0, "output_dir": "out"} | DEFAULTS | read_recipe(find_recipe(name)) | changed


@pytest.mark.parametrize("name", METHODS)
def test_every_packaged_method_has_a_space_around_its_recipe(name):
    recipe = known(name)
    space = {one.path: one for one in read_space(None, recipe)}
    assert {"learning_rate", "retain_weight"} <= set(space)
    assert ("anchor_weight" in space) is (recipe["anchor_loss"] is not None)
    for path, parameter in space.items():
        assert parameter.holds(value_at(path, recipe)) and parameter.ends()[0] != parameter.ends()[1]
    own = {path for path in space if "." in path or path == "optim_args"}
    spec = recipe["forget_loss"]
    loss = spec if isinstance(spec, str) else spec["name"]
    assert own or loss in WITHOUT_SPACE


def test_every_loss_and_wrapper_has_a_space_or_nothing_to_search():
    files = {path.stem for path in SPACES.rglob("*.yaml")}
    assert {*FORGET_LOSSES, *STEP_WRAPPERS} <= files | WITHOUT_SPACE


def test_times_are_of_the_recipe_and_choices_hold_it(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text("learning_rate: {times: [0.5, 2]}\nlora_r: {times: [0.5, 4]}\nretain_loss: {choices: [nll, kl]}\n")
    with pytest.raises(ValueError, match=r"a part of a loss .* got 'retain_loss'"):
        read_space(str(file), known())
    file.write_text(
        "learning_rate: {times: [0.5, 2]}\nlora_r: {times: [0.5, 4]}\noptim: {choices: [sophia, adamw_torch]}"
    )
    rate, rank, optimizer = read_space(str(file), known())
    assert (rate.low, rate.high, rate.log, rate.whole) == (0.002, 0.008, True, False)
    assert (rank.low, rank.high, rank.whole) == (8, 64, True)
    assert optimizer.choices == ("sophia", "adamw_torch")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("learning_rat: {times: [0.5, 2]}", "did you mean 'learning_rate'"),
        ("forget_loss.simnpo.beta: {low: 0.1, high: 1}", "'forget_loss.npo.beta'"),
        ("forget_loss.npo.gamma: {low: 0.1, high: 1}", "'forget_loss.npo.beta'"),
        ("output_dir: {choices: [a, out]}", "must be a known name"),
        ("learning_rate: {low: 0.1, high: 0.01}", "low below high"),
        ("learning_rate: {low: 0.0, high: 0.1, log: true}", "above 0"),
        ("learning_rate: {low: 0.1, hihg: 1}", "did you mean 'high'"),
        ("learning_rate: {times: [2]}", "a list of two numbers"),
        ("learning_rate: 0.1", "a mapping"),
        ("learning_rate: {low: 0.1, high: 1.0}", "to hold the recipe's own value, 0.004"),
        ("{}", "an empty one"),
        ("- learning_rate", "to hold a search space"),
    ],
)
def test_a_space_that_no_run_could_take_is_refused(tmp_path, line, words):
    file = tmp_path / "space.yaml"
    file.write_text(line)
    with pytest.raises(ValueError) as error:
        read_space(str(file), known())
    assert words in str(error.value)


def test_a_space_that_is_nowhere_is_refused():
    with pytest.raises(ValueError, match=r"rate_and_weights, got 'spaces/none\.yaml'"):
        read_space("spaces/none.yaml", known())
    assert [one.path for one in read_space("rate_and_weights", known())] == ["learning_rate", "retain_weight"]


def test_values_come_into_the_recipe_and_leave_it_alone():
    recipe = {"forget_loss": "npo", "retain_loss": ["nll", {"name": "kl", "weight": 0.5}], "learning_rate": 1e-3}
    values = {"forget_loss.npo.beta": 0.123456, "retain_loss.kl.weight": 2.0, "learning_rate": 0.00456789}
    changed = with_values(recipe, values)
    assert changed == {
        "forget_loss": {"name": "npo", "beta": 0.123},
        "retain_loss": [{"name": "nll"}, {"name": "kl", "weight": 2.0}],
        "learning_rate": 0.00457,
    }
    assert recipe["forget_loss"] == "npo" and value_at("forget_loss.npo.beta", recipe) == 0.1
