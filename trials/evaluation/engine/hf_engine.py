"""The engine `hflm`: plain passes and transformers' `generate`, batch by batch, with the numbers of lm-eval's HFLM."""

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lm_eval.models.utils import configure_pad_token
from lm_eval.models.utils_hf import stop_sequences_criteria

from trials.evaluation.engine.protocol import Answer, Continuation, Decoding, Prompt, Response, Tally
from trials.models import positions


@dataclass
class HFEngine:
    """`batch_size` rows go through the model at once."""

    model: Any
    tokenizer: Any
    batch_size: int
    notes: dict[str, str] = field(default_factory=dict, init=False)
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self.max_length = positions.longest(self.model, self.tokenizer)
        self.tokenizer = configure_pad_token(self.tokenizer, model_config=self.model.config)
        self.model.eval()
        self.core = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
        """The model inside PEFT's wrapper; adapters are in its layers."""

    @property
    def device(self) -> torch.device:
        found: torch.device = self.model.device
        return found

    def end_tokens(self) -> set[int | None]:
        """The tokens that end a response. A model may have several; its tokenizer knows one."""
        configured = self.model.generation_config.eos_token_id
        return {self.tokenizer.eos_token_id, *(configured if isinstance(configured, list) else [configured])}

    @torch.no_grad()
    def log_likelihoods(self, requests: Sequence[Continuation]) -> list[Answer]:
        found: list[Any] = [None] * len(requests)
        for number, gold, logits in self._logits_of(requests, whole=True):
            nats = torch.log_softmax(logits, dim=-1)  # in the model's type, as HFLM has it
            found[number] = (float(nats.gather(1, gold[:, None]).sum()), bool((nats.argmax(dim=-1) == gold).all()))
            self.tally.add(1)
        return found

    @torch.no_grad()
    def token_bits(self, requests: Sequence[Continuation]) -> list[list[float]]:
        found: list[list[float]] = [[] for _ in requests]
        for number, gold, logits in self._logits_of(requests, whole=False):
            # in float32 whatever the model's type: a bfloat16 log-likelihood of 5 nats has steps of 0.03
            nats = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
            found[number] = (nats.gather(1, gold[:, None])[:, 0].double() / -math.log(2)).tolist()
        return found

    def _logits_of(self, requests: Sequence[Continuation], whole: bool) -> Iterator[tuple[int, torch.Tensor, torch.Tensor]]:
        """Each request's number, its continuation's tokens, and the logits, (tokens, vocabulary), that predict them.

        `whole`: the model computes logits of all positions, which HFLM does; a head may round otherwise for fewer.
        """
        rows: dict[tuple[int, ...], list[int]] = {}  # requests that differ in their last token alone share a row, as in HFLM
        for number, (context, tokens) in enumerate(requests):
            rows.setdefault((*context, *tokens[:-1]), []).append(number)
        order = sorted(rows, key=lambda row: (-len(row), row))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            longest = len(batch[0])
            first = 0 if whole else min(len(row) - len(requests[number].tokens) for row in batch for number in rows[row])
            logits = self._last_logits(self._padded_right(batch), longest - first)
            for row, of_row in zip(batch, logits, strict=True):
                end = len(row) - (longest - len(of_row))
                for number in rows[row]:
                    gold = torch.tensor(requests[number].tokens, device=self.device)
                    yield number, gold, of_row[end - len(gold) : end]

    def _padded_right(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        """(rows, length), zeros after the shorter rows, as HFLM has them: causality hides what comes after a row."""
        batch = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
        for i, row in enumerate(rows):
            batch[i, : len(row)] = torch.tensor(row)
        return batch.to(self.device)

    def _last_logits(self, batch: torch.Tensor, last: int) -> torch.Tensor:
        """Logits of at least the `last` positions; of all where the model cannot leave any out."""
        partial = "logits_to_keep" in inspect.signature(self.core.forward).parameters
        found: torch.Tensor = self.model(batch, **({"logits_to_keep": last} if partial else {})).logits
        return found

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Response]:
        found: list[Any] = [None] * len(prompts)
        order, ends = sorted(range(len(prompts)), key=lambda i: -len(prompts[i].tokens)), self.end_tokens()
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            longest = len(prompts[batch[0]].tokens)
            made = self.run_generate([prompts[i].tokens for i in batch], decoding)
            for i, tokens in zip(batch, made[:, longest:].tolist(), strict=True):
                # decoded with special tokens, since a stop string may be one; padding follows an end token alone
                text = self.tokenizer.decode(tokens, skip_special_tokens=False)
                stopped = not ends.isdisjoint(tokens) or any(stop in text for stop in decoding.stops)
                found[i] = Response(tokens, stopped)
            self.tally.add(len(batch))
        return found

    def run_generate(self, prompts: Sequence[Sequence[int]], decoding: Decoding, **outputs: Any) -> Any:
        """The result of transformers' `generate` for prompts padded on the left, called as HFLM calls it."""
        settings = {"temperature": 0.0, **decoding.settings}
        if settings.get("do_sample") is False and settings["temperature"] == 0.0:
            del settings["temperature"]  # greedy by do_sample alone; transformers warns about a temperature beside it
        longest = max(map(len, prompts))
        ids = torch.full((len(prompts), longest), self.tokenizer.pad_token_id)
        seen = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):
            ids[i, longest - len(prompt) :], seen[i, longest - len(prompt) :] = torch.tensor(prompt), 1
        stops = stop_sequences_criteria(self.tokenizer, list(decoding.stops), longest, len(prompts))
        return self.model.generate(
            input_ids=ids.to(self.device),
            attention_mask=seen.to(self.device),
            max_length=settings.pop("max_length", longest + decoding.max_tokens),
            stopping_criteria=stops,
            pad_token_id=self.tokenizer.pad_token_id,
            use_cache=True,
            **settings,
            **outputs,
        )
