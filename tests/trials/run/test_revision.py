"""The revision of the running code."""

import pytest

from trials.run import revision


@pytest.fixture(autouse=True)
def _uncached():
    revision.git_revision.cache_clear()
    yield
    revision.git_revision.cache_clear()


def test_shipped_code_has_the_revision_of_its_environment(monkeypatch):
    monkeypatch.setenv(revision.SHIPPED, "abc+changes")
    assert revision.git_revision() == "abc+changes"


def unavailable(*_, **__):
    raise FileNotFoundError("git")


def test_code_without_git_has_no_revision(monkeypatch):
    monkeypatch.delenv(revision.SHIPPED, raising=False)
    monkeypatch.setattr(revision.subprocess, "run", unavailable)
    assert revision.git_revision() is None
