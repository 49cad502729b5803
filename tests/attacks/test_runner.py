"""attack(): halves, choice, controls, resume, budget, errors. The attacks themselves have tests of their own."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import hf_unlearn.attacks.jobs
from fixtures.models import tiny_tokenizer
from fixtures.planted import attacked_rows, planted_model, planted_oracle, planted_rows
from hf_unlearn.attacks import ATTACKS, Attack, AttackedRows, Leak, Target, Threat, attack
from hf_unlearn.attacks.choice import same_series, steps_to_half, subject_leak
from hf_unlearn.attacks.rows import halves


@dataclass(frozen=True)
class Ask(Attack):
    """The answer's probability as it is, and sharpened."""

    power: float = 0.5

    name = "ask"
    threat = Threat.QUERIES
    formula = "p^power"

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        leak = target.probabilities(rows.rows)
        yield Leak({"power": 1}, leak)
        yield Leak({"power": self.power}, leak**self.power)


@dataclass(frozen=True)
class Wreck(Attack):
    """Everything is likely in a model that is of no use any more."""

    name = "wreck"
    threat = Threat.WEIGHTS
    formula = "1"

    def run(self, target: Target, rows: AttackedRows) -> Iterable[Leak]:
        yield Leak({"step": 0}, target.probabilities(rows.rows), target.utility())
        yield Leak({"step": 1}, np.ones(len(rows.rows)), target.utility() / 2)

    def unfit(self, target: Target, rows: AttackedRows) -> str | None:
        return "there is nothing to wreck" if rows.unseen and len(rows.unseen) == 23 else None


def sets(**more):
    planted = planted_rows()
    return {"forget": planted["forget"], "retain": planted["retain"], **more}


def attacked(model, attacks=None, **options):
    given = {"controls": planted_rows()["unseen"], "oracle": planted_oracle(), "before": planted_model()} | options
    return attack(model, tiny_tokenizer(), sets(), [Ask()] if attacks is None else attacks, **given)


def test_the_halves_are_halves_of_rows_not_of_places():
    rows = planted_rows()["forget"]
    tuned = halves(rows)
    assert tuned.sum() == len(rows) // 2
    assert (halves(rows[::-1]) == tuned[::-1]).all()
    given = attacked_rows().given(0.1)
    assert len(given) == 2 and all(tuned[place] for place in given)


def test_setting_is_chosen_on_one_half_and_reported_on_the_other():
    tuned = np.array([True, True, False, False])
    leaks = [
        Leak({"step": 0}, np.array([0.1, 0.1, 0.1, 0.3])),
        Leak({"step": 1}, np.array([0.5, np.nan, 0.2, 0.6])),
        Leak({"step": 2}, np.array([0.4, 0.4, 0.9, 0.9])),  # best on the reported half: may not be known
        Leak({"step": 3}, np.array([0.9, 0.9, 1.0, 1.0]), utility=0.44),  # wrecked
    ]
    leak = subject_leak(leaks, tuned, utility=0.5, seconds=1.0)
    assert leak.setting == {"step": 1} and leak.rows == [0.2, 0.6] and leak.leak == pytest.approx(0.4)
    assert leak.untouched == pytest.approx(0.2)
    assert [setting.kept for setting in leak.settings] == [True, True, True, False]
    assert leak.settings[3].utility == pytest.approx(0.88)
    assert steps_to_half(leak, old=0.8) == 1 and steps_to_half(leak, old=1.9) is None
    assert [setting.setting["step"] for setting in same_series(leak)] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="expected leaks of 4 rows"):
        subject_leak([Leak({}, np.ones(3))], tuned, 1.0, 0.0)


def test_excess_over_the_higher_control():
    report = attacked(planted_model())
    finding = report["ask"]
    reported = {name: subject.leak for name, subject in finding.subjects.items()}
    higher = max(("oracle", "unseen"), key=lambda name: reported[name])
    assert finding.excess.control == higher
    assert finding.excess.value == pytest.approx(reported["model"] - reported[higher])
    assert 0.7 < finding.excess.low < finding.excess.value < finding.excess.high
    assert finding.subjects["model"].setting == {"power": 0.5} and finding.recovered == 1.0
    assert reported["before"] == reported["model"] and len(finding.subjects["model"].rows) == 12
    assert report.worst["queries"].attack == "ask" and report.worst["queries"].excess == finding.excess
    assert "weights" not in report.worst
    assert report.attacked_rows == 24 and report.reported_rows == 12 and report.oracles == 1
    assert [warning for warning in report.warnings if "Only 12 rows" in warning]


def test_the_oracle_exceeds_itself_by_nothing():
    oracle = planted_oracle()
    alone = attacked(oracle, oracle=oracle, controls=None)["ask"]
    assert alone.excess.value == 0.0 and abs(alone.excess.low) < 1e-6 and abs(alone.excess.high) < 1e-6
    assert alone.recovered == 0.0
    several = attacked(planted_model(), oracle=[planted_oracle(), planted_model()], controls=None)["ask"]
    assert several.excess.value == 0.0  # over the one that gives away most


def test_a_wrecked_model_is_not_chosen_and_models_stay_as_they_are():
    model = planted_oracle()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    finding = attacked(model, [Wreck()])["wreck"]
    assert finding.subjects["model"].setting == {"step": 0}
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())


def test_goes_on_from_what_was_done(tmp_path, monkeypatch):
    model, runs, whole = planted_model(), [], hf_unlearn.attacks.jobs._attacked

    def interrupted(job, sets):
        if len(runs) == 2:
            raise KeyboardInterrupt
        runs.append(job.key)
        return whole(job, sets)

    monkeypatch.setattr(hf_unlearn.attacks.jobs, "_attacked", interrupted)
    with pytest.raises(KeyboardInterrupt):
        attacked(model, partial=tmp_path / "kept")
    files = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert len(files) == 2
    text = "".join(path.read_text() for path in (tmp_path / "kept").iterdir())
    assert "code" not in text
    monkeypatch.setattr(
        hf_unlearn.attacks.jobs, "_attacked", lambda job, sets: runs.append(job.key) or whole(job, sets)
    )
    report = attacked(model, partial=tmp_path / "kept")
    assert runs == [("ask", name) for name in ("model", "unseen", "oracle", "before")]
    assert not (tmp_path / "kept").exists()
    monkeypatch.setattr(hf_unlearn.attacks.jobs, "_attacked", whole)
    at_once = attacked(model)

    def figures(report):
        return [dataclasses.replace(finding, subjects={
            name: dataclasses.replace(leak, seconds=0.0) for name, leak in finding.subjects.items()
        }) for finding in report.findings]  # fmt: skip

    assert figures(report) == figures(at_once)


def test_attacks_for_which_no_time_is_left_are_named():
    report = attacked(planted_model(), budget=1e-9)
    assert report.findings == [] and report.skipped == {"ask": "the budget of 1e-09 minutes was used up"}


def test_an_attack_that_does_not_fit_is_named_or_refused(monkeypatch):
    short = planted_rows()["unseen"][:23]
    with pytest.raises(ValueError, match="there is nothing to wreck"):
        attacked(planted_model(), [Wreck()], controls=short)
    monkeypatch.setitem(ATTACKS, "wreck", Wreck)
    monkeypatch.setitem(hf_unlearn.attacks.ATTACK_SUITES, "quick", [{"name": "wreck"}])
    report = attacked(planted_model(), "quick", controls=short)
    assert report.skipped == {"wreck": "there is nothing to wreck"} and report.suite == "quick"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"controls": None, "oracle": None}, "Expected a control"),
        ({"attacks": "relern"}, "did you mean 'relearn'"),
        ({"attacks": "quik"}, "did you mean 'quick'"),
        ({"controls": planted_rows()["forget"]}, "24 that are forget rows"),
        ({"controls": planted_rows()["unseen"][:3]}, "at least 4 rows never seen"),
        ({"before": "a name"}, "loaded causal language models"),
        ({"budget": 0}, "budget must be"),
        ({"limit": 0}, "limit must be"),
    ],
)
def test_bad_input(given, words):
    with pytest.raises(ValueError, match=words):
        attacked(planted_model(), given.pop("attacks", None), **given)


def test_rows_of_an_unknown_set_and_uneven_paraphrases():
    options = {"controls": planted_rows()["unseen"]}
    with pytest.raises(ValueError, match="did you mean 'related'"):
        attack(planted_model(), tiny_tokenizer(), sets(relatd=planted_rows()["retain"]), [Ask()], **options)
    with pytest.raises(ValueError, match="as many paraphrases for each"):
        attack(planted_model(), tiny_tokenizer(), sets(paraphrases=planted_rows()["retain"][:5]), [Ask()], **options)


def test_ranks_share_the_jobs(monkeypatch):
    """Two ranks of an accelerator that is not there: each has every other job, and both get all."""
    shares = {}

    def share(rank):
        accelerator = SimpleNamespace(process_index=rank, num_processes=2, is_main_process=rank == 0)
        monkeypatch.setattr(hf_unlearn.attacks.jobs, "gather_object", lambda own: shares.setdefault(rank, own))
        monkeypatch.setattr(hf_unlearn.attacks.jobs, "_attacked", lambda job, sets: job.key)
        jobs = [
            SimpleNamespace(key=("a", str(n)), subject=SimpleNamespace(target=SimpleNamespace(model=planted_oracle())))
            for n in range(5)
        ]
        monkeypatch.setattr(hf_unlearn.attacks.jobs, "refused_together", lambda *_: torch.no_grad())
        done = SimpleNamespace(read=lambda job: None, write=lambda job, leak: None)
        hf_unlearn.attacks.jobs.run_jobs(jobs, None, done, accelerator, minutes=None)

    share(0), share(1)
    assert [key[1] for key, _ in shares[0]] == ["0", "2", "4"] and [key[1] for key, _ in shares[1]] == ["1", "3"]
