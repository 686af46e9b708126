"""Missing models, data and tasks are one line before anything starts."""

import pytest

from tests.factories.chat_bases import chat_micro
from trials import preflight
from trials.errors import InputError
from trials.models import base, layout
from trials.spec import TrialSpec
from trials.tasks import tasks


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"base": {"model": "nobody/nothing", "dtype": "float32"}}, "base.model 'nobody/nothing' is neither"),
        (
            {
                "data": {
                    "samples": 4,
                    "mix": {"x": 1},
                    "sources": {"x": {"dataset": "no/data", "instruction": "", "response": ""}},
                }
            },
            "no/data",
        ),
        ({"eval": {"math": {"task": "gsm9k", "metric": "exact_match"}}}, "lm-eval has no task 'gsm9k'"),
        ({"eval": {"math": {"task": "micro_gsm", "metric": "acc"}}}, "measures exact_match,strict-match"),
        ({"eval": {"math": {"task": "micro_cs", "metric": "acc", "documents": 9_999}}}, "9999 requested"),
        ({"eval": {"math": {"task": "micro_cs", "metric": "acc", "chat_template": True}}}, "has no chat template; leave"),
        (
            {
                "data": {
                    "samples": 4,
                    "mix": {"x": 1},
                    "sources": {
                        "x": {
                            "dataset": "micro/gsm8k",
                            "config": "main",
                            "split": "test",
                            "instruction": "{{question}}",
                            "response": "{{answer}}",
                        }
                    },
                }
            },
            "split that task micro_gsm",
        ),
    ],
)
def test_missing_input_is_one_line(spec, worker, monkeypatch, change, expected):
    # an unknown name makes lm-eval index all of its tasks, which takes ten seconds
    monkeypatch.setattr(tasks, "_stock_tasks", lambda: tasks._stock_folder(tasks._STOCK / "gsm8k"))
    with pytest.raises(InputError) as caught:
        changed = TrialSpec.model_validate({**spec.model_dump(mode="json"), **change})
        preflight.check(changed, worker.session.hub, worker.session.tasks)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tokenizer_is_loaded_once_for_a_trial(parts, tmp_path, worker, monkeypatch):
    parts["base"]["model"] = str(chat_micro(tmp_path))
    parts["data"]["template"] = "chat"
    for evaluation in parts["eval"].values():
        evaluation["chat_template"] = True
    spec = TrialSpec.model_validate({name: parts[name] for name in TrialSpec.model_fields if name in parts})
    layout.of(spec.base, worker.session.hub)  # caches what it reads of the tokenizer
    loaded, tokenizer = [], base.tokenizer
    monkeypatch.setattr(base, "tokenizer", lambda *given: loaded.append(given) or tokenizer(*given))
    preflight.check(spec, worker.session.hub, worker.session.tasks)
    assert len(loaded) == 1
    preflight.check(spec.baseline(), worker.session.hub, worker.session.tasks)
    assert len(loaded) == 2
