"""A judge behind an endpoint, against a local server: retries, errors, likelihoods, cache, and where the key goes."""

import json
import logging
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import openai
import pytest
from datasets import Dataset

from hf_unlearn.evaluation import language_model_judge
from hf_unlearn.evaluation.judges.agreement import measure_agreement, read_agreement, save_agreement

KEY = "sk-never-to-be-seen"
OWN = "{reference} | {answer}"


def completion(text, top=None, refusal=None):
    logprobs = None
    if top is not None:
        listed = [{"token": token, "logprob": math.log(mass), "bytes": None} for token, mass in top.items()]
        logprobs = {"content": [listed[0] | {"top_logprobs": listed}]}
    message = {"role": "assistant", "content": text, "refusal": refusal}
    choice = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": logprobs}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "stub-2026", "choices": [choice]}


class Server:
    """Replies by what the question's answer says; counts what it was sent."""

    def __init__(self):
        self.asked, self.keys = [], set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.keys.add(self.headers["Authorization"])
                question = body["messages"][0]["content"]
                outer.asked.append(question)
                status, reply = outer.reply(question.split("| ")[1], outer.asked.count(question))
                data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                if status == 302:
                    self.send_header("Location", "http://127.0.0.1:9/v1/chat/completions")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    @staticmethod
    def reply(answer, times):
        kind = answer.split()[0]
        if kind == "slow":
            time.sleep(0.4)
        error = {"error": {"message": f"no: {answer}"}}
        return {
            "leak": (200, completion("Yes.")),
            "likely": (200, completion("yes", {"Yes": 0.5, " yes": 0.1, "no": 0.2})),
            "busy": (429, error) if times == 1 else (200, completion("no")),
            "down": (500, error),
            "key": (401, error),
            "away": (302, error),
            "nonsense": (200, completion("perhaps, who knows")),
            "refused": (200, completion(None, refusal="I would rather not")),
            "broken": (200, b"<html>"),
            "empty": (200, {}),
        }.get(kind, (200, completion("no, not at all")))


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("HF_UNLEARN_JUDGE_KEY", KEY)
    monkeypatch.setattr(openai._base_client, "INITIAL_RETRY_DELAY", 0.01)
    stub = Server()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


def judge_at(server, tmp_path, **options):
    given = {"prompt": OWN, "cache": tmp_path / "cache.sqlite", "retries": 1, "timeout": 5.0} | options
    return language_model_judge("stub", endpoint=server.url, **given)


def test_replies_by_likelihood_and_by_words_with_a_retry(server, tmp_path):
    judge = judge_at(server, tmp_path)
    found = judge.judgement(["leak", "likely", "busy", "fine", ""], ["r"] * 5)
    assert found.flags == (True, True, False, False, False) and found.errors == {}
    assert server.asked.count("r | busy") == 2 and len(server.asked) == 5
    assert found.run == {"sent": 4, "from_cache": 0, "versions": ["stub-2026"], "by_likelihood": 1, "by_words": 3}
    shares = [reply.share for reply in judge.source.replies(["r | likely"], ("yes", "no"))[0]]
    assert shares == pytest.approx([0.6 / 0.8])


def test_every_kind_of_failure_is_counted_and_none_is_no_leak(server, tmp_path):
    failing = ["down", "nonsense", "refused", "broken", "empty"]
    answers = failing + [f"fine {i}" for i in range(120)]
    found = judge_at(server, tmp_path, workers=1).judgement(answers, ["r"] * len(answers))
    assert found.flags[:5] == (None,) * 5 and found.flags[5:] == (False,) * 120
    assert found.errors["status 500"] == 1 and found.errors["refusal to judge"] == 1
    assert sum(found.errors.values()) == 5 and server.asked.count("r | down") == 2


def test_a_timeout_is_an_error_and_a_redirect_is_not_followed(server, tmp_path):
    with pytest.raises(ValueError, match="status 302"):  # a redirect would take the rows elsewhere
        judge_at(server, tmp_path).judgement(["away"], ["r"])
    found = judge_at(server, tmp_path, timeout=0.1, retries=0).judgement(["slow"], ["r"])
    assert found.flags == (None,) and found.errors == {"timeout": 1}


def test_after_too_many_failures_the_rest_is_not_asked(server, tmp_path):
    answers = [f"down {i}" for i in range(100)]
    found = judge_at(server, tmp_path, retries=0, workers=2).judgement(answers, ["r"] * 100)
    assert set(found.flags) == {None} and len(server.asked) < 20
    assert found.errors["not asked after too many failures"] > 80
    assert np.isnan(found.values).all()


def test_what_was_paid_for_is_not_asked_again(server, tmp_path):
    judge = judge_at(server, tmp_path, workers=1)
    judge.judgement(["leak", "fine 1"], ["r", "r"])  # a first evaluation, ended after two answers
    again = judge_at(server, tmp_path).judgement(["leak", "fine 1", "fine 2", "nonsense"], ["r"] * 4)
    assert again.run["from_cache"] == 2 and again.run["sent"] == 2 and again.flags == (True, False, False, None)
    assert judge_at(server, tmp_path).judgement(["nonsense"], ["r"]).run["sent"] == 1  # errors are asked again
    assert judge_at(server, tmp_path, prompt=OWN + "!").judgement(["leak!"], ["r"]).run["sent"] == 1
    kept = (tmp_path / "cache.sqlite").read_bytes()
    assert b"leak" not in kept and KEY.encode() not in kept


def test_the_key_is_sent_and_seen_nowhere_else(server, tmp_path, caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        judge = judge_at(server, tmp_path)
        found = judge.judgement(["leak", "down"], ["r", "r"])
        with pytest.raises(ValueError, match="HF_UNLEARN_JUDGE_KEY") as refused:
            judge.judgement(["key"], ["r"])
    assert server.keys == {f"Bearer {KEY}"}
    texts = [caplog.text, str(refused.value), repr(refused.value), judge.name, json.dumps(judge.record())]
    texts += [repr(found), repr(vars(judge.source)), *capfd.readouterr()]
    assert not any(KEY in text for text in texts)
    assert judge.record()["host"] in server.url and "r | key" not in str(refused.value)


def test_no_address_comes_from_the_environment_and_keys_do_not_travel_in_the_clear(server, tmp_path, monkeypatch):
    for address in ("http://u:p@host/v1", "https://host/v1?key=1", "host/v1"):
        with pytest.raises(ValueError, match="without a name"):
            language_model_judge("stub", endpoint=address)
    with pytest.raises(ValueError, match="https with a key"):
        language_model_judge("stub", endpoint="http://elsewhere/v1")
    with pytest.raises(ValueError, match="option of the judge"):
        language_model_judge("stub", endpoint=server.url, api_key=KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert judge_at(server, tmp_path).judgement(["leak"], ["r"]).flags == (True,)


def test_agreement_with_a_person_is_measured_saved_and_kept_with_the_judge(server, tmp_path):
    answers = ["leak 1", "leak 2", "leak 3", "fine 1", "fine 2", "nonsense", *(f"fine {i}" for i in range(10, 30))]
    labels = ["1", "yes", "0", "no", "1", "1", *["0"] * 20]
    rows = Dataset.from_dict({"answer": answers, "label": labels})
    judge = judge_at(server, tmp_path)
    found = measure_agreement(judge, rows)
    assert found.unjudged == 1 and found.kappa.n == 25
    # of 25 rows both yes 2, judge alone 1, person alone 1, both no 21: p_o = 23/25, p_e = (3 * 3 + 22 * 22) / 25^2
    chance = (3 * 3 + 22 * 22) / 625
    assert found.kappa.value == pytest.approx((23 / 25 - chance) / (1 - chance))
    assert found.accuracy.value == 23 / 25
    save_agreement(found, tmp_path / "agreement.json")
    assert read_agreement(tmp_path / "agreement.json").words == found.words
    kept = judge_at(server, tmp_path, agreement=tmp_path / "agreement.json")
    assert kept.record()["agreement"]["unjudged"] == 1
    with pytest.raises(ValueError, match="agreement that was measured of"):
        judge_at(server, tmp_path, agreement=tmp_path / "agreement.json", threshold=0.7)
    with pytest.raises(ValueError, match="a label of 1 or 0"):
        measure_agreement(judge, Dataset.from_dict({"answer": ["a"], "label": ["maybe"]}))
    with pytest.raises(ValueError, match="hf-unlearn judge"):
        read_agreement(tmp_path / "cache.sqlite")
