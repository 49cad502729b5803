"""What a metric means to a reader: labels, formats and directions, and that none of the suites' metrics lacks them."""

import pytest

from hf_unlearn.evaluation.suites import copyright, custom, harmful, muse, rwku, tofu, unlearn_qa, wmdp
from hf_unlearn.metrics import METRIC_DESCRIPTIONS, MetricDescription
from hf_unlearn.metrics.description import undescribed

SUITES = {"harmful": harmful, "copyright": copyright, "tofu": tofu, "custom": custom, "muse": muse}
SUITES |= {"unlearn_qa": unlearn_qa, "wmdp": wmdp}
SUITES |= {"rwku": rwku}


@pytest.mark.parametrize("suite", SUITES)
def test_every_metric_of_a_headline_is_described(suite):
    for name in SUITES[suite].HEADLINE:
        described = METRIC_DESCRIPTIONS.packaged[name]
        assert described.name == name and described.label and described.about


def test_which_way_is_wanted():
    """Of forget rows more forgotten, of others better: an NLL is to rise on the first, to stay low on the second."""
    wanted = {name: described.greater_is_better for name, described in METRIC_DESCRIPTIONS.packaged.items()}
    assert (wanted["forget_nll"], wanted["retain_nll"], wanted["holdout_nll"]) == (True, False, None)
    assert (wanted["forget_probability"], wanted["retain_probability"]) == (False, True)
    assert (wanted["in_scope_accuracy"], wanted["out_of_scope_accuracy"]) == (False, True)
    assert (wanted["harmful_rate"], wanted["efficacy"], wanted["model_utility"]) == (False, True, True)
    assert wanted["min_k_auc"] is None and wanted["refusal_rate"] is None


@pytest.mark.parametrize(
    ("given", "value", "written"), [(".1%", 0.125, "12.5%"), (".3f", 1.25, "1.250"), (".3g", 0.00123, "0.00123")]
)
def test_how_a_value_is_written(given, value, written):
    described = MetricDescription("rhymes", format=given)
    assert described.write(value) == written and described.in_points == written.endswith("%")
    assert described.title == "rhymes" and MetricDescription("rhymes", "rhyming answers").title == "rhyming answers"


@pytest.mark.parametrize("given", ["{:.1%}", "%", ".1000f", ".3f\n", "s", 3])
def test_another_format_is_refused(given):
    with pytest.raises(ValueError, match="format of rhymes must be a precision"):
        MetricDescription("rhymes", format=given)


def test_what_a_name_alone_tells():
    assert undescribed("rhyming_rate").write(0.5) == "50.0%" and undescribed("feet").write(0.5) == "0.500"
    assert (undescribed("forget_feet").rows, undescribed("feet").rows) == ("forget", "")
    assert (undescribed("new_kind_auc").attack, undescribed("feet").attack) == ("new-kind", "")
