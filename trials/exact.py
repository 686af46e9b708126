"""The engine `exact`: lm-eval's numbers with less work, as an lm-eval model, so that every task goes through it.

Continuations share their context's pass (trials/endings.py), responses leave the batch as they end (trials/decode.py), and
what was tokenised once in a process stays so. What it does not know, it leaves to lm-eval's own model: another decoding than
the greedy one, contexts that must be cut, architectures whose attention is not told by a mask alone.
"""

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text

from trials import decode, endings, prefix, slots
from trials.scorer import Scorer, Token

_HARMLESS = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "use_cache"} | {
    *("do_sample", "temperature", "top_k", "top_p", "max_length", "max_new_tokens")
}
"""What a model's own generation settings may say without a greedy choice being another one for it."""

_TEXTS = 4096
"""Tokenised at once."""

_tokens: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()
"""Of each tokenizer: what it made of every text of a process, since the documents are those of all its trials."""


class Exact(Scorer):
    """Scorer that asks the model for less."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int):
        super().__init__(model, tokenizer, batch_size)
        self._core = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._fits = prefix.fits(self._core)
        self._known = _tokens.setdefault(self.tokenizer, {})
        self.gold: Callable[[Any], str] | None = None
        """The text that could have answered a request, which will be asked for: scored while its prompt is at hand."""
        self._golds: dict[tuple[str, str], list[float]] = {}
        self._texts: dict[str, list[int]] = {}
        """Tokens of texts that lm-eval is about to ask for."""

    @torch.no_grad()
    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None) -> Any:
        self._texts = {}
        most = self.max_length
        if not self._fits or any(len(context) + len(ids) > most for _, context, ids in requests):
            return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        asked: dict[tuple[int, ...], list[int]] = {}
        for number, (_, context, _) in enumerate(requests):
            asked.setdefault(tuple(context), []).append(number)
        questions = [endings.Question(list(context), [requests[i][2] for i in of]) for context, of in asked.items()]
        numbers = list(asked.values())
        found: list[Any] = [None] * len(requests)
        for batch, scored in self._scored(questions):
            for i, of_question in zip(batch, scored.read(), strict=True):
                for number, answer in zip(numbers[i], of_question, strict=True):
                    found[number] = answer
        for request, answer in zip(requests, found, strict=True):
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], answer)
        return found

    def _scored(self, questions: Sequence[endings.Question]) -> Iterator[tuple[list[int], endings.Scored]]:
        """Numbers of questions, and what became of them: each batch when the next one is on its way."""
        before: tuple[list[int], endings.Scored] | None = None
        for batch in endings.batches(questions, self.batch_size, self.device):
            with self._precision():
                scored = endings.score(self._core, [questions[i] for i in batch], self.softmax_dtype)
            if before:
                yield before
            before = (batch, scored)
        if before:
            yield before

    @torch.no_grad()
    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        asked: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            asked.setdefault(repr(request.args[1]), []).append(number)
        found: list[Any] = [None] * len(requests)
        for numbers in asked.values():
            some = [requests[i] for i in numbers]
            responses = self._greedy(some) if self._is_greedy(some[0].args[1]) else super().generate_until(some, disable_tqdm)
            for number, response in zip(numbers, responses, strict=True):
                found[number] = response
        return found

    def _is_greedy(self, asked: dict[str, Any]) -> bool:
        settings = normalize_gen_kwargs(asked, self.max_gen_toks)
        others = settings.keys() - {"until", "max_gen_toks", "do_sample", "temperature"}
        chosen = settings.get("do_sample") in (None, False) and settings.get("temperature", 0.0) == 0.0
        own = {name for name, value in self._core.generation_config.to_diff_dict().items() if value not in (None, False)}
        return self._fits and chosen and not others and own <= _HARMLESS and self.think_end_token is None

    def _greedy(self, requests: Sequence[Any]) -> list[str]:
        settings = normalize_gen_kwargs(requests[0].args[1], self.max_gen_toks)
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(settings.get("until"), eos=end)
        most = settings["max_gen_toks"]
        room = self.max_length - most
        if room <= 0:
            raise ValueError(f"{most} tokens to generate do not leave room for a prompt within {self.max_length}")
        prompts = [request.args[0] for request in requests]
        rows = [decode.Row(self._prompt(prompt)[-room:]) for prompt in prompts]
        golds = [self.gold(request) for request in requests] if self.gold else []
        for row, prompt, gold in zip(rows, prompts, golds, strict=False):
            ids, count, _ = self._encoded(prompt, gold)
            if ids[:-count] == row.prompt and len(ids) <= self.max_length:
                row.gold = ids[-count:]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].prompt))
        with self._precision():
            greedy = slots.greedy if self.device.type == "cuda" else decode.greedy
            greedy(self._core, [rows[i] for i in order], most, self.batch_size, self._ends(stops))
        for row, prompt, gold in zip(rows, prompts, golds, strict=False):
            if row.gold:
                self._golds[prompt, gold] = [nats / -math.log(2) for nats in row.gold_nats]
        found = []
        for request, row in zip(requests, rows, strict=True):
            self.note_stopped(row.stopped)
            text = postprocess_generated_text(generation=self.tok_decode(row.generated), stop=stops, think_end_token=None)
            self.cache_hook.add_partial("generate_until", request.args, text)
            found.append(text)
        return found

    def continuation_bits(self, pairs: Sequence[tuple[str, str]]) -> list[list[Token]]:
        new = [pair for pair in pairs if pair not in self._golds]
        others = dict(zip(new, super().continuation_bits(new), strict=True))
        return [others[pair] if pair in others else self._told(pair) for pair in pairs]

    def _told(self, pair: tuple[str, str]) -> list[Token]:
        spans = self._encoded(*pair)[2]
        return [Token(bits, *span) for bits, span in zip(self._golds[pair], spans, strict=True)]

    def _ends(self, stops: Sequence[str]) -> Callable[[list[int]], bool]:
        """Whether tokens end a response: the last by itself, or the text of the last few by a stop string in it."""
        last = self.end_tokens()
        back = max((len(self.tok_encode(stop, add_special_tokens=False)) for stop in stops), default=0) + 2  # as lm-eval
        wanted = [stop for stop in stops if stop]

        def ends(tokens: list[int]) -> bool:
            if tokens[-1] in last:
                return True
            text = self.tok_decode(tokens[-back:], skip_special_tokens=False)
            return any(stop in text for stop in wanted)

        return ends

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        pairs = dict.fromkeys(request.args for request in requests)
        texts = {text for pair in pairs if ("pair", *pair) not in self._known for text in (pair[0].rstrip(), "".join(pair))}
        self._texts = self._tokenised(texts)  # until _loglikelihood_tokens
        return super().loglikelihood(requests, disable_tqdm)

    def _tokenised(self, texts: Collection[str]) -> dict[str, list[int]]:
        """tok_encode's tokens of texts, many at once; less those whose beginning it looks at."""
        plain = [text for text in texts if text and self._is_plain(text)]
        special = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        found: dict[str, list[int]] = {}
        for begin in range(0, len(plain), _TEXTS):
            some = plain[begin : begin + _TEXTS]
            found |= zip(some, self.tokenizer(some, return_attention_mask=False, **special)["input_ids"], strict=True)
        return found

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **others: Any
    ) -> list[int]:
        if add_special_tokens is None and left_truncate_len is None and string in self._texts:
            return self._texts[string]
        tokens: list[int] = super().tok_encode(string, add_special_tokens, left_truncate_len, **others)
        return tokens

    def _prompt(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self.tok_batch_encode([text])[0][0].tolist()
        return self._known[text]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair = ("pair", context, continuation)
        if pair not in self._known:
            self._known[pair] = super()._encode_pair(context, continuation)
        return self._known[pair]

    def _encoded(self, context: str, continuation: str) -> tuple[list[int], int, list[tuple[int, int]]]:
        pair = ("spans", context, continuation)
        if pair not in self._known:
            self._known[pair] = super()._encoded(context, continuation)
        return self._known[pair]

    def _split(self, context: str, continuation: str, whole: list[int]) -> tuple[list[int], list[int]]:
        self._texts = {context + continuation: whole}
        if self._is_plain(context) and context == context.rstrip():  # a prompt that was generated from
            self._texts[context] = self._prompt(context)
        try:
            return self._encode_pair(context, continuation)
        finally:
            self._texts = {}

    def _is_plain(self, text: str) -> bool:
        """Whether lm-eval tokenises the text alike for all that is done with it: it looks at what it begins with."""
        return not text.startswith(self._first)

    @cached_property
    def _first(self) -> tuple[str, ...]:
        first = self.tok_decode(self.prefix_token_id, skip_special_tokens=False)
        return first, self.tokenizer.bos_token or first

    def _precision(self) -> Any:
        kind = self.mixed_precision_dtype
        return torch.autocast(device_type=self.device.type, dtype=kind, enabled=kind is not None)
