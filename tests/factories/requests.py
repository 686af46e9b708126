"""Worlds for tests: lm-eval's requests, and the fast engine that answers them."""

from typing import Any

from lm_eval.api.instance import Instance

from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter


def instances(kind: str, arguments: list[tuple]) -> list[Instance]:
    return [Instance(kind, {}, one, i) for i, one in enumerate(arguments)]


def fast(model: Any, tokenizer: Any, batch_size: int) -> LmEvalAdapter:
    return LmEvalAdapter(FastEngine(model, tokenizer, batch_size))
