"""What vLLM cannot run, and a machine without it, is one line."""

import pytest

from tests.factories.specs import changed, small_spec
from trials.errors import InputError
from trials.evaluation.engine.vllm_python import PYTHON, check_settings, python, wanted


def test_adapter_that_vllm_does_not_run_is_refused():
    math = {**small_spec().model_dump(mode="json")["eval"]["math"], "engine": "vllm"}
    spec = changed(small_spec(), eval={"math": math})
    assert (wanted(spec), wanted(small_spec())) == (True, False)
    check_settings(spec)
    with pytest.raises(InputError, match="vLLM runs no DoRA"):
        check_settings(changed(spec, lora={"use_dora": True}))
    with pytest.raises(InputError, match=r"lora\.method oft: vLLM runs LoRA alone"):
        check_settings(changed(spec, lora={"method": "oft"}))


def test_missing_vllm_is_one_line_that_says_how_to_get_it(monkeypatch):
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(InputError, match=f"{PYTHON} is not set, and this environment has no vLLM; make an environment"):
        python()
    monkeypatch.setenv(PYTHON, "/no/python")
    with pytest.raises(InputError, match=f"{PYTHON} names /no/python, which cannot be run"):
        python()
