"""Runs that the tests of publishing share, trained once a session; who changes a folder works on a copy."""

import pytest

from results.hub.runs import train


@pytest.fixture(scope="session")
def adapter_run(tmp_path_factory):
    """The folder of a run that trained an adapter on sets of the user's own; its base model lies beside it."""
    return train(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory):
    """The folder of a run that trained all weights on sets that are public."""
    return train(tmp_path_factory.mktemp("whole"), adapter=False, public=True)


@pytest.fixture(autouse=True)
def _no_client_of_an_earlier_hub(monkeypatch):
    """transformers keeps one client for good, and every test has a Hub of its own."""
    monkeypatch.setattr("transformers.utils.hub._hf_api", None)
