"""`slimsweep logs` prints a trial's log, and goes on while the trial runs."""

import pytest

from orchestrator import logs
from tests.factories.sweeps import Builder
from trials.errors import InputError
from trials.ledger import storage
from trials.run import trial_log


@pytest.fixture
def built(tmp_path):
    builder = Builder(tmp_path).baseline().add((26, 37)).add()
    builder.load()
    storage.write_text(builder.ledger.folder(builder.trials[0]["key"]) / trial_log.FILE, "2026 one\n2026 [red]two[/]\n")
    return builder


def test_log_is_printed_as_it_is(built, command):
    key = built.trials[0]["key"]
    for name in ("#0", "0", key, key[:8]):
        ran = command("logs", name, built.folder)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "2026 one\n2026 [red]two[/]\n", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("#9", "has no trial #9; it has 2 trials, #0 to #1"),
        ("zzz", "has no one record 'zzz'"),
        ("#1", "has no log: it has not started yet"),
    ],
)
def test_unknown_key_and_missing_log_are_one_line(built, command, name, message):
    ran = command("logs", name, built.folder)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert message in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_missing_log_says_why(built):
    with pytest.raises(InputError, match="has not started yet"):
        logs.read(built.ledger, "9" * 16)
    ended = built.base.key
    for look in (lambda: logs.read(built.ledger, ended), lambda: list(logs.followed(built.ledger, ended))):
        with pytest.raises(InputError, match="has ended, and its log was not written"):
            look()
    with built.ledger.lease(ended), pytest.raises(InputError, match="its log has not been written yet"):
        logs.read(built.ledger, ended)


def test_baseline_is_found_by_its_name(built):
    assert logs.key_in(built.folder, "baseline") == built.base.key


def test_name_that_means_several_baselines_lists_their_keys(built):
    other = built.spec(8, seed=5).key
    built.load(baselines=[built.base.key, other])
    with pytest.raises(InputError, match=f"has 2 baselines; give the key of one: {built.base.key}, {other}"):
        logs.key_in(built.folder, "baseline")


def test_folder_without_a_sweep_is_one_line(tmp_path, command):
    ran = command("logs", "#0", tmp_path / "none")
    assert ran.returncode == 2
    assert "there is no such folder" in ran.stderr


def test_follow_shows_what_is_appended_until_the_trial_ends(built, monkeypatch):
    key = built.trials[1]["key"]
    lease, path = built.ledger.lease(key), built.ledger.folder(key) / trial_log.FILE
    path.write_text("one\n")
    coming = ["two\n", "", f"2026 {trial_log.END}\n"]

    def sleep(seconds: float) -> None:
        with path.open("a") as file:
            file.write(coming.pop(0))
        if len(coming) == 2:
            lease.release()  # its worker has died; it is tried again, so this is no end

    monkeypatch.setattr(logs.time, "sleep", sleep)
    assert list(logs.followed(built.ledger, key)) == ["one\n", "two\n", f"2026 {trial_log.END}\n"]


def test_follow_of_an_ended_trial_prints_it_once(built):
    assert list(logs.followed(built.ledger, built.trials[0]["key"])) == ["2026 one\n2026 [red]two[/]\n"]


def test_shortened_log_goes_on_after_the_last_known_line():
    assert logs.appended("a\nb\n", "a\nb\nc\n") == "c\n"
    assert logs.appended("a\nb\nc\n", "a\n==== left out ====\nc\nd\n") == "d\n"
    assert logs.appended("", "a\n") == "a\n"
