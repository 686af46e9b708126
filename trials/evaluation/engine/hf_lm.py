"""lm-eval's Hugging Face model, telling besides which generations stopped by themselves and what each gold token cost."""

import inspect
import math
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from lm_eval.api.model import CacheHook
from lm_eval.models.huggingface import HFLM

from trials.models import positions


@dataclass(frozen=True)
class Token:
    """A token of a continuation: its bits, and the characters of the continuation, begin to end, that its text covers."""

    bits: float
    begin: int
    end: int


class _Stops(CacheHook):
    """Told every prompt as its response is done, in the order of generation; lm-eval hands results on in another order."""

    def __init__(self) -> None:
        super().__init__(None)
        self.waiting: deque[bool] = deque()
        self.by_prompt: dict[str, bool] = {}

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        if attr == "generate_until":
            self.by_prompt[req[0]] = self.waiting.popleft()


class Scorer(HFLM):
    """HFLM whose responses and log-likelihoods are untouched."""

    batch_size_per_gpu: Any

    def __init__(self, model: Any, tokenizer: Any, batch_size: int):
        length = positions.longest(model, tokenizer)
        # lm-eval takes a decoder of BART's family for a model with an encoder unless its backend is named
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, backend="causal", max_length=length)
        self.core = model.get_base_model() if hasattr(model, "get_base_model") else model
        """The model without PEFT's own around it; adapters are in its layers."""
        self._stops = _Stops()
        self.set_cache_hook(self._stops)

    @contextmanager
    def at_once(self, rows: int) -> Iterator[None]:
        """In the block so many rows go through the model at once."""
        before: Any = self.batch_size_per_gpu
        self.batch_size_per_gpu = rows
        try:
            yield
        finally:
            self.batch_size_per_gpu = before

    def stopped(self, prompt: str) -> bool:
        """Whether the response to the prompt ended by an end token or a stop string, rather than at the most tokens allowed."""
        return self._stops.by_prompt[prompt]

    def note_stopped(self, by_itself: bool) -> None:
        """Of the next response that the cache hook is told."""
        self._stops.waiting.append(by_itself)

    def end_tokens(self) -> set[int | None]:
        """The tokens that end a response."""
        configured = self.model.generation_config.eos_token_id
        return {self.eot_token_id, *(configured if isinstance(configured, list) else [configured])}

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> torch.Tensor:
        out = super()._model_generate(context=context, max_length=max_length, stop=stop, **kwargs)
        ends = self.end_tokens()
        for row in out[:, context.shape[1] :].tolist():
            # with the special tokens, since a stop string may be one; padding comes after an end token alone
            text = self.tok_decode(row, skip_special_tokens=False)
            self.note_stopped(not ends.isdisjoint(row) or any(term in text for term in stop))
        return out

    def continuation_bits(self, pairs: Sequence[tuple[str, str]]) -> list[list[Token]]:
        """The tokens of every (context, continuation), as lm-eval splits them, `batch_size` rows at once.

        Their bits add up to the log-likelihood that lm-eval gives the continuation; the softmax is in float32 whatever the
        model's type, since a bfloat16 log-likelihood of 5 nats has steps of 0.03. What is too long for the model is cut from
        the left, as lm-eval cuts it; tokens of the continuation that fall away so are not there.
        """
        encoded = [self._encoded(*pair) for pair in pairs]
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i][0]))  # as long as their neighbours: less padding
        found: list[list[Token]] = [[] for _ in pairs]
        for start in range(0, len(order), self.batch_size):
            chunk = order[start : start + self.batch_size]
            for i, bits in zip(chunk, self.bits([encoded[i][:2] for i in chunk]), strict=True):
                found[i] = [Token(value, *span) for value, span in zip(bits, encoded[i][2][-len(bits) :], strict=True)]
        return found

    def _encoded(self, context: str, continuation: str) -> tuple[list[int], int, list[tuple[int, int]]]:
        """Token numbers of both, how many are the continuation's, and the characters of it that each of those covers.

        A character belongs to the first token that reaches its end, white space to the token after it: each to one.
        """
        text = context + continuation
        special = self.tok_encode(text[:64]) != self.tok_encode(text[:64], add_special_tokens=False)
        whole = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)
        context_ids, ids = self._split(context, continuation, whole["input_ids"])
        if whole["input_ids"][len(context_ids) :] != ids:
            raise RuntimeError("the tokenizer's offsets are of other tokens than those that are scored")
        spans, covered = [], 0
        for _, end in whole["offset_mapping"][len(context_ids) :]:
            end = min(max(end - len(context), covered), len(continuation))
            spans.append((covered, end))
            covered = end
        if spans:
            spans[-1] = (spans[-1][0], len(continuation))
        return context_ids + ids, len(ids), spans

    def _split(self, context: str, continuation: str, whole: list[int]) -> tuple[list[int], list[int]]:
        """lm-eval's tokens of both, where `whole` are those of one text of both."""
        pair: tuple[list[int], list[int]] = self._encode_pair(context, continuation)
        return pair

    @torch.no_grad()
    def bits(self, rows: Sequence[tuple[list[int], int]]) -> list[list[float]]:
        """Bits of the last `count` tokens of every row, by one plain pass; padded on the right, as lm-eval pads."""
        cut = [(tokens[-(self.max_length + 1) :], min(count, self.max_length)) for tokens, count in rows]
        longest = max(len(tokens) for tokens, _ in cut) - 1
        batch = torch.zeros(len(cut), longest, dtype=torch.long, device=self.device)
        for i, (tokens, _) in enumerate(cut):
            batch[i, : len(tokens) - 1] = torch.tensor(tokens[:-1], device=self.device)
        first = min(len(tokens) - 1 - count for tokens, count in cut)
        logits = self._logits(batch, longest - first)
        skipped = longest - logits.shape[1]
        found = []
        for i, (tokens, count) in enumerate(cut):
            end = len(tokens) - 1 - skipped
            part = torch.log_softmax(logits[i, end - count : end], dim=-1, dtype=self.softmax_dtype or torch.float32)
            gold = torch.tensor(tokens[-count:], device=self.device)
            found.append((part.gather(1, gold[:, None])[:, 0].double() / -math.log(2)).tolist())
        return found

    def _logits(self, batch: torch.Tensor, last: int) -> torch.Tensor:
        """Logits of the `last` positions at least: of all, where the model cannot leave any out."""
        if "logits_to_keep" not in inspect.signature(self.core.forward).parameters:
            return self._model_call(batch)
        precision = self.mixed_precision_dtype
        with torch.autocast(device_type=self.device.type, dtype=precision, enabled=precision is not None):
            found: torch.Tensor = self.model(batch, logits_to_keep=last).logits
        return found
