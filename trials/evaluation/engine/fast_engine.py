"""The engine `exact`: the numbers of lm-eval's HFLM with less work.

Continuations share the pass over their context (loglikelihood.py); responses leave the batch as they end (greedy.py,
cuda_graph_greedy.py). Requests that this is not exact for go to HFEngine (verification.py).
"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from trials.adapters import methods
from trials.evaluation.engine import cuda_graph_greedy, greedy, loglikelihood, verification
from trials.evaluation.engine.hf_engine import HFEngine
from trials.evaluation.engine.loglikelihood import Question, Scored
from trials.evaluation.engine.protocol import Answer, Continuation, Decoding, Prompt, Response, Tally
from trials.evaluation.engine.verification import Route

# Fields of a model's own generation settings that leave the greedy choice as it is. max_new_tokens takes precedence over the
# task's number, as it does in transformers' generate.
_HARMLESS = {"bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config", "use_cache"} | {
    *("do_sample", "temperature", "top_k", "top_p", "max_length", "max_new_tokens")
}


class FastEngine:
    """`batch_size` rows go through the model at once."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int):
        self.plain = HFEngine(model, tokenizer, batch_size)
        self.core, self.tokenizer, self.batch_size = self.plain.core, self.plain.tokenizer, batch_size
        self.max_length = self.plain.max_length
        self._routes: dict[str, Route] = {}
        self.tally = Tally()

    @property
    def notes(self) -> dict[str, str]:
        return {kind: str(route) for kind, route in self._routes.items()}

    def _at_once(self, rows: int | None) -> HFEngine:
        """A plain engine with so many rows at once, in place of this one."""
        return HFEngine(self.plain.model, self.tokenizer, rows or self.batch_size, self.tally)

    def _route(self, kind: str, sizes: tuple[Any, ...], find: Callable[[], Route]) -> Route:
        """Which engine answers requests of this kind and these sizes."""
        found = verification.route(self.core, kind, (self.batch_size, *sizes), find)
        if kind not in self._routes or found.rows is not None:  # once handed on, noted as handed on
            self._routes[kind] = found
        return found

    # ---------------------------------------------------------------------- log-likelihoods

    @torch.no_grad()
    def log_likelihoods(self, requests: Sequence[Continuation]) -> list[Answer]:
        longest = max(len(context) + len(tokens) for context, tokens in requests)
        # the longest row of several continuations, or the longest row of all if each context has one
        numbers, widest = max(self._questions(requests), key=lambda row: (len(row[1].endings) > 1, row[1].length))
        probe = [requests[i] for i in numbers]
        find = functools.partial(verification.likelihoods, self.plain, self._likelihoods, requests, probe)
        route = self._route("log-likelihood", (longest, widest.length), find)
        if route.rows is not None:
            return self._at_once(route.rows).log_likelihoods(requests)
        return self._likelihoods(requests, self.tally.add)

    def _likelihoods(
        self, requests: Sequence[Continuation], answered: Callable[[int], None] = lambda requests: None
    ) -> list[Answer]:
        numbers, questions = zip(*self._questions(requests), strict=True)
        found: list[Any] = [None] * len(requests)
        for batch, scored in self._scored(questions):
            for i, answers in zip(batch, scored.read(), strict=True):
                for number, answer in zip(numbers[i], answers, strict=True):
                    found[number] = answer
            answered(sum(len(numbers[i]) for i in batch))
        return found

    def _questions(self, requests: Sequence[Continuation]) -> list[tuple[list[int], Question]]:
        """Numbers of the requests that share a row, and the row."""
        same: dict[tuple[int, ...], list[int]] = {}
        for number, (context, _) in enumerate(requests):
            same.setdefault(tuple(context), []).append(number)
        rows = [
            [numbers[i] for i in part]
            for context, numbers in same.items()
            for part in loglikelihood.parts(len(context), [len(requests[i].tokens) for i in numbers], self.max_length)
        ]
        return [(row, Question(requests[row[0]].context, [requests[i].tokens for i in row])) for row in rows]

    def _scored(self, questions: Sequence[Question]) -> Iterator[tuple[list[int], Scored]]:
        """Numbers of questions with their scores, each batch after the next one was sent to the device."""
        before: tuple[list[int], Scored] | None = None
        for batch in loglikelihood.batches(questions, self.batch_size, self.plain.device):
            scored = loglikelihood.score(self.core, [questions[i] for i in batch])
            if before:
                yield before
            before = (batch, scored)
        if before:
            yield before

    def token_bits(self, requests: Sequence[Continuation]) -> list[list[float]]:
        route = self._routes.get("generation")
        return self._at_once(route.rows if route else None).token_bits(requests)

    # ---------------------------------------------------------------------- generation

    @torch.no_grad()
    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Response]:
        route = self._generation_route(prompts, decoding)
        if route.rows is not None:
            return self._at_once(route.rows).generate(prompts, decoding)
        rows = [greedy.Row(prompt.tokens, gold=prompt.gold) for prompt in prompts]
        most = self._max_tokens(decoding)
        self._run(rows, most, self._counted(self._ends(decoding.stops), most))
        return [Response(row.generated, row.stopped, [nats / -math.log(2) for nats in row.gold_nats]) for row in rows]

    def _generation_route(self, prompts: Sequence[Prompt], decoding: Decoding) -> Route:
        if decoding.settings.get("do_sample"):
            self._routes["generation"] = Route(self.batch_size, "the task samples its responses")
            return self._routes["generation"]
        if not all(prompt.tokens for prompt in prompts):
            self._routes["generation"] = Route(1, "an empty prompt")
            return self._routes["generation"]
        probed = Decoding(self._max_tokens(decoding), (), decoding.settings)
        obstacle, longest = self._unknown_settings(decoding.settings), max(len(prompt.tokens) for prompt in prompts)
        find = functools.partial(verification.generation, self.plain, self._run, prompts, probed, obstacle)
        return self._route("generation", (longest, repr((probed, obstacle))), find)

    def _unknown_settings(self, settings: Mapping[str, Any]) -> str | None:
        """Why responses are not greedy ones of the model alone."""
        own = {name for name, value in self.core.generation_config.to_diff_dict().items() if value not in (None, False)}
        if unknown := sorted((settings.keys() - {"do_sample", "temperature"}) | (own - _HARMLESS)):
            return f"generation settings: {', '.join(unknown)}"
        return None

    def _max_tokens(self, decoding: Decoding) -> int:
        return self.core.generation_config.max_new_tokens or decoding.max_tokens

    def _run(self, rows: Sequence[greedy.Row], most: int, ends: Callable[[list[int]], bool] | None = None) -> None:
        """Generates into the rows. `ends` is by default: with an end token."""
        graphs = self.plain.device.type == "cuda" and methods.capturable(self.core)
        run = cuda_graph_greedy.greedy if graphs else greedy.greedy
        longest_first = sorted(rows, key=lambda row: -len(row.prompt))
        run(self.core, longest_first, most, self.batch_size, ends or self._ends(()))

    def _counted(self, ends: Callable[[list[int]], bool], most: int) -> Callable[[list[int]], bool]:
        """`ends`, which is called once for each token of a response; counts the responses that are complete."""

        def counted(tokens: list[int]) -> bool:
            found = ends(tokens)
            if found or len(tokens) >= most:
                self.tally.add(1)
            return found

        return counted

    def _ends(self, stops: Sequence[str]) -> Callable[[list[int]], bool]:
        """Whether tokens end a response: with an end token, or with a stop string in the text of the last tokens."""
        last = self.plain.end_tokens()
        by_length: dict[int, list[str]] = {}
        for stop in stops:  # lm-eval looks back two tokens more than the string has
            by_length.setdefault(len(self.tokenizer.encode(stop, add_special_tokens=False)) + 2, []).append(stop)

        def ends(tokens: list[int]) -> bool:
            if tokens[-1] in last:
                return True
            texts = ((self.tokenizer.decode(tokens[-back:]), some) for back, some in by_length.items())
            return any(stop in text for text, some in texts for stop in some)

        return ends
