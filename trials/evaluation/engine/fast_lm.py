"""The engine `exact`: lm-eval's numbers with less work, as an lm-eval model, so that every task goes through it.

Continuations share their context's pass (trials/evaluation/engine/loglikelihood.py), responses leave the batch as they end
(trials/evaluation/engine/greedy.py), and what was tokenised once in a process stays so. Another decoding than the greedy one is
left to lm-eval's own model, and so is a kind of request for which the engine does not give the model's own numbers
(trials/evaluation/engine/verification.py).
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from trials.evaluation.engine import cuda_graph_greedy, verification
from trials.evaluation.engine import greedy as decode
from trials.evaluation.engine import loglikelihood as endings
from trials.evaluation.engine.hf_lm import Scorer, Token

_HARMLESS = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "use_cache"} | {
    *("do_sample", "temperature", "top_k", "top_p", "max_length", "max_new_tokens")
}
"""What a model's own generation settings may say: a greedy choice is the same one. max_new_tokens takes precedence over the
task's number, as it does in transformers' generate, which lm-eval calls."""

_TEXTS = 4096
"""Tokenised at once."""

_tokens: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()
"""Of each tokenizer: what it made of every text of a process, since the documents are those of all its trials."""


class Exact(Scorer):
    """Scorer that asks the model for less."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int):
        super().__init__(model, tokenizer, batch_size)
        self._known = _tokens.setdefault(self.tokenizer, {})
        self.gold: Callable[[Any], str] | None = None
        """The text that could have answered a request, which will be asked for: scored while its prompt is at hand."""
        self._golds: dict[tuple[str, str], list[float]] = {}
        self._texts: dict[str, list[int]] = {}
        """Tokens of texts that lm-eval is about to ask for."""
        self.ways: dict[str, verification.Way] = {}
        """By kind of request, who answered it; lm-eval's own model, if it answered some."""
        self.cut: dict[str, str] = {}
        """By kind of request, how many prompts were longer than the model and lost their beginning, as under lm-eval."""

    @torch.no_grad()
    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None) -> Any:
        self._texts = {}
        if not requests:
            return []
        cut = [(name, self._cut(context, ids), ids) for name, context, ids in requests]
        self._note_cut("log-likelihood", [len(old[1]) > len(new[1]) for old, new in zip(requests, cut, strict=True)])
        longest = max(len(context) + len(ids) for _, context, ids in cut)
        widest = max(self._questions(cut), key=lambda row: (len(row[1].endings) > 1, row[1].length))
        sizes, row = (longest, widest[1].length), [cut[i] for i in widest[0]]
        way = self._way("log-likelihood", sizes, lambda: verification.likelihoods(self, self._likelihoods, cut, row))
        if way.rows is not None:
            with self.at_once(way.rows):
                return super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        found = self._likelihoods(cut)
        for request, answer in zip(requests, found, strict=True):
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], answer)
        return found

    def _cut(self, context: list[int], ids: list[int]) -> list[int]:
        """The context's tokens that lm-eval keeps: the model sees all but the last of context and continuation."""
        return context[max(0, len(context) + len(ids) - self.max_length - 1) :]

    def _note_cut(self, kind: str, cut: Sequence[bool]) -> None:
        if any(cut):
            self.cut[f"prompts cut, {kind}"] = (
                f"{sum(cut)} of {len(cut)} lost their beginning: the model takes {self.max_length} tokens"
            )

    def _way(self, kind: str, sizes: tuple[Any, ...], find: Callable[[], verification.Way]) -> verification.Way:
        """Who answers requests of the kind."""
        found = verification.way(self.core, kind, (self.batch_size, *sizes), find)
        if kind not in self.ways or found.rows is not None:
            self.ways[kind] = found
        return found

    def _likelihoods(self, requests: Sequence[verification.Request]) -> list[tuple[float, bool]]:
        """The engine's answers; none of the contexts has to be cut."""
        numbers, questions = zip(*self._questions(requests), strict=True)
        found: list[Any] = [None] * len(requests)
        for batch, scored in self._scored(questions):
            for i, of_question in zip(batch, scored.read(), strict=True):
                for number, answer in zip(numbers[i], of_question, strict=True):
                    found[number] = answer
        return found

    def _questions(self, requests: Sequence[verification.Request]) -> list[tuple[list[int], endings.Question]]:
        """Numbers of the requests that share a row, and the row."""
        asked: dict[tuple[int, ...], list[int]] = {}
        for number, (_, context, _) in enumerate(requests):
            asked.setdefault(tuple(context), []).append(number)
        numbers = [
            [of[i] for i in part]
            for context, of in asked.items()
            for part in endings.parts(len(context), [len(requests[i][2]) for i in of], self.max_length)
        ]
        return [(of, endings.Question(requests[of[0]][1], [requests[i][2] for i in of])) for of in numbers]

    def _scored(self, questions: Sequence[endings.Question]) -> Iterator[tuple[list[int], endings.Scored]]:
        """Numbers of questions, and what became of them: each batch when the next one is on its way."""
        before: tuple[list[int], endings.Scored] | None = None
        for batch in endings.batches(questions, self.batch_size, self.device):
            with self._precision():
                scored = endings.score(self.core, [questions[i] for i in batch], self.softmax_dtype)
            if before:
                yield before
            before = (batch, scored)
        if before:
            yield before

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        windows = [
            (number, (None, *make_disjoint_window(window)))
            for number, request in enumerate(requests)
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
        ]
        found = [0.0] * len(requests)
        answers = self._loglikelihood_tokens([window for _, window in windows], disable_tqdm)
        for (number, _), (nats, _) in zip(windows, answers, strict=True):
            found[number] += nats
        return found

    @torch.no_grad()
    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        asked: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            asked.setdefault(repr(request.args[1]), []).append(number)
        found: list[Any] = [None] * len(requests)
        for numbers in asked.values():
            responses = self._responses([requests[i] for i in numbers], disable_tqdm)
            for number, response in zip(numbers, responses, strict=True):
                found[number] = response
        return found

    def _responses(self, requests: Sequence[Any], disable_tqdm: bool) -> list[str]:
        """To requests of the same settings."""
        settings = normalize_gen_kwargs(requests[0].args[1], self.max_gen_toks)
        most = settings["max_gen_toks"]
        room = self.max_length - most
        if room <= 0:
            raise ValueError(f"{most} tokens to generate do not leave room for a prompt within {self.max_length}")
        rows = self._rows(requests, room)
        way = self._way_of(rows, settings)
        if way.rows is not None:
            with self.at_once(way.rows):
                return super().generate_until(list(requests), disable_tqdm)
        return self._greedy(requests, rows, settings)

    def _rows(self, requests: Sequence[Any], room: int) -> list[decode.Row]:
        """The prompts, the last `room` tokens of each, with the golds that fit behind them."""
        prompts = [request.args[0] for request in requests]
        rows = [decode.Row(self._prompt(prompt)[-room:]) for prompt in prompts]
        self._note_cut("generation", [len(self._prompt(prompt)) > room for prompt in prompts])
        golds = [self.gold(request) for request in requests] if self.gold else []
        for row, prompt, gold in zip(rows, prompts, golds, strict=False):
            ids, count, _ = self._encoded(prompt, gold)
            if ids[:-count] == row.prompt and len(ids) <= self.max_length:
                row.gold = ids[-count:]
        return rows

    def _way_of(self, rows: Sequence[decode.Row], settings: Mapping[str, Any]) -> verification.Way:
        """Who generates for these rows."""
        others = {name: value for name, value in settings.items() if name not in ("until", "max_gen_toks")}
        if others.get("do_sample"):
            self.ways["generation"] = verification.Way(self.batch_size, "the task samples its responses")
            return self.ways["generation"]
        if not all(row.prompt for row in rows):
            self.ways["generation"] = verification.Way(1, "an empty prompt")
            return self.ways["generation"]
        decoding = verification.Decoding(self._most(settings), others, self._stranger(others))
        sizes = (max(len(row.prompt) for row in rows), repr(decoding))
        return self._way("generation", sizes, lambda: verification.generation(self, self._generate, rows, decoding))

    def _stranger(self, others: Mapping[str, Any]) -> str | None:
        """Why responses are not greedy ones of the model alone."""
        own = {name for name, value in self.core.generation_config.to_diff_dict().items() if value not in (None, False)}
        if strange := sorted((others.keys() - {"do_sample", "temperature"}) | (own - _HARMLESS)):
            return f"generation settings: {', '.join(strange)}"
        return None

    def _most(self, settings: Mapping[str, Any]) -> int:
        """Tokens of a response."""
        return self.core.generation_config.max_new_tokens or settings["max_gen_toks"]

    def _generate(self, rows: Sequence[decode.Row], most: int, ends: Callable[[list[int]], bool] | None = None) -> None:
        last = self.end_tokens()
        greedy = cuda_graph_greedy.greedy if self.device.type == "cuda" else decode.greedy
        longest_first = sorted(rows, key=lambda row: -len(row.prompt))
        with self._precision():
            greedy(self.core, longest_first, most, self.batch_size, ends or (lambda tokens: tokens[-1] in last))

    def _greedy(self, requests: Sequence[Any], rows: Sequence[decode.Row], settings: Mapping[str, Any]) -> list[str]:
        end = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        stops = handle_stop_sequences(settings["until"], eos=end)
        self._generate(rows, self._most(settings), self._ends(stops))
        found = []
        for request, row in zip(requests, rows, strict=True):
            if row.gold and self.gold:
                self._golds[request.args[0], self.gold(request)] = [nats / -math.log(2) for nats in row.gold_nats]
            self.note_stopped(row.stopped)
            text = postprocess_generated_text(generation=self.tok_decode(row.generated), stop=stops, think_end_token=None)
            self.cache_hook.add_partial("generate_until", request.args, text)
            found.append(text)
        return found

    def continuation_bits(self, pairs: Sequence[tuple[str, str]]) -> list[list[Token]]:
        new = [pair for pair in pairs if pair not in self._golds]
        way = self.ways.get("generation")
        with self.at_once(way.rows if way and way.rows else self.batch_size):
            others = dict(zip(new, super().continuation_bits(new), strict=True))
        return [others[pair] if pair in others else self._told(pair) for pair in pairs]

    def _told(self, pair: tuple[str, str]) -> list[Token]:
        spans = self._encoded(*pair)[2]
        return [Token(bits, *span) for bits, span in zip(self._golds[pair], spans, strict=True)]

    def _ends(self, stops: Sequence[str]) -> Callable[[list[int]], bool]:
        """Whether tokens end a response: the last by itself, or a stop string in the text of as many as lm-eval looks back."""
        last = self.end_tokens()
        wanted: dict[int, list[str]] = {}
        for stop in stops:
            wanted.setdefault(len(self.tok_encode(stop, add_special_tokens=False)) + 2, []).append(stop)

        def ends(tokens: list[int]) -> bool:
            if tokens[-1] in last:
                return True
            texts = ((self.tok_decode(tokens[-back:], skip_special_tokens=False), some) for back, some in wanted.items())
            return any(stop in text for text, some in texts for stop in some)

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
