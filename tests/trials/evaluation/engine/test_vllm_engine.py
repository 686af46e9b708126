"""The engine `vllm` in whole trials: its own key, vLLM's responses, and the other numbers of the fast engine."""

import os
import warnings

import pytest

from tests.factories import fake_vllm
from tests.factories.specs import changed, small_spec
from trials.evaluation.engine.protocol import Decoding, Prompt
from trials.evaluation.engine.vllm_engine import VllmEngine
from trials.evaluation.engine.vllm_python import PYTHON
from trials.spec import TrialSpec


def with_vllm(spec: TrialSpec) -> TrialSpec:
    return changed(spec, eval={"math": {**spec.model_dump(mode="json")["eval"]["math"], "engine": "vllm"}})


def test_key_holds_the_engine_where_it_is_vllm():
    spec = small_spec()
    plain = changed(spec, eval={"math": {**spec.model_dump(mode="json")["eval"]["math"], "engine": "hflm"}})
    assert spec.key == plain.key != with_vllm(spec).key
    assert spec.baseline().key != with_vllm(spec).baseline().key


def compared(another) -> None:
    exact, vllm = another(), another()
    for spec in (small_spec(), small_spec().baseline()):
        own = with_vllm(spec)
        one, other = exact.run(spec), vllm.run(own)
        assert (one.state, other.state) == ("complete", "complete"), other.failure
        assert other.engine["math"]["generation"].startswith("vllm ")
        assert "generation" not in other.engine["commonsense"]
        mine, theirs = exact.session.ledger.documents(spec.key), vllm.session.ledger.documents(own.key)
        generated = mine["role"] == "math"
        assert mine[~generated].equals(theirs[~generated])
        assert mine["response"].tolist() == theirs["response"].tolist()
        bits = [one for one in mine if one.startswith("bits")]
        assert bits
        assert mine[bits].to_numpy() == pytest.approx(theirs[bits].to_numpy(), abs=1e-3, nan_ok=True)


def test_trial_has_the_responses_of_vllm_and_all_else_of_the_fast_engine(another, tmp_path, monkeypatch):
    monkeypatch.setenv(PYTHON, fake_vllm.python(tmp_path))
    compared(another)


@pytest.mark.slow
def test_trial_with_vllm_itself_has_the_responses_of_the_exact_engine_in_float32(another):
    if PYTHON not in os.environ:
        warnings.warn(f"{PYTHON} is not set: vLLM itself is not tried", stacklevel=1)
        pytest.skip(f"{PYTHON} names no Python with vLLM")
    compared(another)


def test_trial_without_vllm_fails_before_it_trains(another, monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    record = another().run(with_vllm(small_spec()))
    assert (record.state, record.failure.kind) == ("failed", "InputError")
    assert "train" not in record.seconds


class NoServer:
    def generate(self, request, adapter):
        raise AssertionError


@pytest.mark.parametrize(
    ("tokens", "settings", "reason"),
    [([5], {"do_sample": True, "temperature": 0.7}, "samples"), ([5], {"num_beams": 2}, "num_beams"), ([], {}, "empty prompt")],
)
def test_requests_that_are_not_greedy_are_answered_here(micro, tokens, settings, reason):
    engine = VllmEngine(micro.model, micro.tokenizer, 2, NoServer(), None)
    if tokens:
        assert engine.generate([Prompt(tokens)], Decoding(3, (), settings))[0].tokens
        assert reason in engine.notes["generation"]
    else:
        assert reason in (engine._obstacle([Prompt(tokens)], Decoding(3, (), settings)) or "")
