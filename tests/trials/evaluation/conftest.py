"""Micro, its tasks, and the outcomes of some of their documents."""

import pandas as pd
import pytest

from trials.evaluation import evaluate
from trials.evaluation.engine.fast_engine import FastEngine
from trials.hub.hub import Hub
from trials.models import base
from trials.spec import Base, Evaluation
from trials.tasks.tasks import Tasks


@pytest.fixture(scope="module")
def micro():
    return base.load(Base(model="micro", quantization="none", dtype="float32"), Hub())


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return Tasks(Hub())


@pytest.fixture(scope="module")
def documents(micro, tasks) -> dict[str, pd.DataFrame]:
    """24 documents of every benchmark of micro, by its preset."""
    found = {}
    for name in ("micro_swag", "micro_gsm", "micro_cs"):
        evaluation = Evaluation.model_validate({"preset": name, "documents": 24})
        found[name] = evaluate.evaluate(FastEngine(micro.model, micro.tokenizer, 8), name, evaluation, tasks)
    return found
