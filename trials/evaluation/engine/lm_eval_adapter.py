"""Any engine behind lm-eval: tokenisation, cutting and text handling of lm-eval's HFLM, and the engine for the model's part.

The only file of the engines that touches what lm-eval keeps to itself: two hooks of TemplateLM and its template environment.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from trials.evaluation.engine.protocol import Answer, Continuation, Decoding, Engine, Prompt, Response
from trials.tasks.chat_prompts import ChatPrompts
from trials.tasks.tasks import DEFAULT_RESPONSE_TOKENS

_TEXTS = 4096
"""Texts tokenised in one call."""

_tokens: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()
"""By tokenizer, the tokens of every text of this process: all trials of a worker have the same documents."""


@dataclass(frozen=True)
class Token:
    """A token of a continuation: its bits, and the characters of the continuation, begin to end, that its text covers."""

    bits: float
    begin: int
    end: int


class LmEvalAdapter(TemplateLM):
    """An engine as lm-eval's model."""

    def __init__(
        self,
        engine: Engine,
        gold: Callable[[Any], str] | None = None,
        chat: ChatPrompts | None = None,
        think_end_token: str | int | None = None,
    ):
        """`gold`: the gold continuation of a generation request, which `continuation_bits` will be called for.

        `chat` renders messages where lm-eval applies a chat template. A response begins after its last `think_end_token`.
        """
        super().__init__()
        self.engine, self.tokenizer, self.gold = engine, engine.tokenizer, gold
        self._chat, self._think_end_token = chat, think_end_token
        self._known = _tokens.setdefault(self.tokenizer, {})
        self._texts: dict[str, list[int]] = {}
        """Tokens of texts that TemplateLM is about to tokenise one by one."""
        self._gold_bits: dict[tuple[str, str], list[float]] = {}
        self._stopped: dict[str, bool] = {}
        self._cut: dict[str, str] = {}

    @property
    def notes(self) -> dict[str, str]:
        """By kind of request, who answered it, and how many prompts lost their beginning; empty if the engine notes nothing."""
        return {**self.engine.notes, **self._cut} if self.engine.notes else {}

    # ---------------------------------------------------------------------- chat template

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        if self._chat is None:
            raise RuntimeError("lm-eval applies a chat template, and the evaluation has none")
        return self._chat(chat_history, add_generation_prompt)

    @property
    def tokenizer_name(self) -> str:
        return ""  # lm-eval's name for cached requests, of which there are none here

    # ---------------------------------------------------------------------- log-likelihoods

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[Answer]:
        pairs = dict.fromkeys(request.args for request in requests)
        texts = {text for pair in pairs if ("pair", *pair) not in self._known for text in (pair[0].rstrip(), "".join(pair))}
        self._texts = self._tokenised(texts)
        _count(self.engine, requests, len(requests))
        try:
            found: list[Answer] = super().loglikelihood(requests, disable_tqdm=True)  # the reporter shows the progress
        finally:
            self._texts = {}
        return found

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[Answer]:
        cut = []
        for _, context, tokens in requests:
            if not 0 < len(tokens) <= self.engine.max_length:
                raise ValueError(f"a continuation has {len(tokens)} tokens; the model takes 1 to {self.engine.max_length}")
            # the model reads all tokens but the last, which is only predicted
            cut.append(Continuation(context[max(0, len(context) + len(tokens) - self.engine.max_length - 1) :], tokens))
        shorter = [len(old[1]) > len(new.context) for old, new in zip(requests, cut, strict=True)]
        self._note_cut("log-likelihood", shorter)
        return self.engine.log_likelihoods(cut) if cut else []

    def _note_cut(self, kind: str, cut: Sequence[bool]) -> None:
        if any(cut):
            self._cut[f"prompts cut, {kind}"] = (
                f"{sum(cut)} of {len(cut)} lost their beginning: the model takes {self.engine.max_length} tokens"
            )

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        windows = [
            (number, (None, *make_disjoint_window(window)))
            for number, request in enumerate(requests)
            for window in get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.engine.max_length,
                context_len=1,
            )
        ]
        found = [0.0] * len(requests)
        _count(self.engine, requests, len(windows))
        answers = self._loglikelihood_tokens([window for _, window in windows])
        for (number, _), (nats, _) in zip(windows, answers, strict=True):
            found[number] += nats
        return found

    # ---------------------------------------------------------------------- generation

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> list[str]:
        _count(self.engine, requests, len(requests))
        groups: dict[str, list[int]] = {}
        for number, request in enumerate(requests):
            groups.setdefault(repr(request.args[1]), []).append(number)
        found: list[Any] = [None] * len(requests)
        for numbers in groups.values():
            texts = self._generate([requests[i] for i in numbers])
            for number, text in zip(numbers, texts, strict=True):
                found[number] = text
        return found

    def _generate(self, requests: Sequence[Any]) -> list[str]:
        """Responses to requests of the same settings."""
        settings: dict[str, Any] = dict(normalize_gen_kwargs(requests[0].args[1], DEFAULT_RESPONSE_TOKENS))
        end = self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        decoding = Decoding(settings.pop("max_gen_toks"), handle_stop_sequences(settings.pop("until"), eos=end), settings)
        golds = [self.gold(request) if self.gold else "" for request in requests]
        prompts = self._prompts([request.args[0] for request in requests], golds, decoding.max_tokens)
        found = []
        for request, gold, response in zip(requests, golds, self.engine.generate(prompts, decoding), strict=True):
            self._stopped[request.args[0]] = response.stopped
            if response.gold_bits:
                self._gold_bits[request.args[0], gold] = response.gold_bits
            found.append(_text(self.tokenizer, response, decoding.stops, self._think_end_token))
        return found

    def _prompts(self, texts: Sequence[str], golds: Sequence[str], max_tokens: int) -> list[Prompt]:
        """The last tokens of each text that leave room for a response, and its gold if that follows the whole text."""
        room = self.engine.max_length - max_tokens
        if room <= 0:
            raise ValueError(f"{max_tokens} tokens to generate leave no room for a prompt within {self.engine.max_length}")
        prompts = []
        for text, gold in zip(texts, golds, strict=True):
            kept, wanted = self._prompt(text)[-room:], list[int]()
            if gold:
                whole, _ = self._encoded(text, gold)
                if whole.context == kept and len(kept) + len(whole.tokens) <= self.engine.max_length:
                    wanted = whole.tokens
            prompts.append(Prompt(kept, wanted))
        self._note_cut("generation", [len(self._prompt(text)) > room for text in texts])
        return prompts

    def stopped(self, prompt: str) -> bool:
        """Whether an end token or a stop string ended the response to the prompt, rather than its greatest length."""
        return self._stopped[prompt]

    # ---------------------------------------------------------------------- bits of gold solutions

    def continuation_bits(self, pairs: Sequence[tuple[str, str]]) -> list[list[Token]]:
        """The tokens of the continuation of every (context, continuation), split as lm-eval splits them.

        They follow the tokens that a response to a chat's prompt is generated from. Without a chat their bits add up to the
        log-likelihood that lm-eval gives the continuation. A pair that is too long for the model loses its beginning, as under
        lm-eval; tokens of the continuation that fall away are missing from the result.
        """
        encoded, most = [self._encoded(*pair) for pair in pairs], self.engine.max_length
        new = [i for i, pair in enumerate(pairs) if pair not in self._gold_bits]
        cut = []
        for (context, tokens), _ in (encoded[i] for i in new):
            kept = tokens[-most:]
            whole = [*context, *tokens][-(most + 1) :]
            cut.append(Continuation(whole[: len(whole) - len(kept)], kept))
        scored = dict(zip(new, self.engine.token_bits(cut), strict=True))
        found = []
        for i, (pair, (_, spans)) in enumerate(zip(pairs, encoded, strict=True)):
            bits = scored[i] if i in scored else self._gold_bits[pair]
            found.append([Token(one, *span) for one, span in zip(bits, spans[-len(bits) :], strict=True)])
        return found

    def _encoded(self, context: str, continuation: str) -> tuple[Continuation, list[tuple[int, int]]]:
        """The pair as tokens, and the characters of the continuation that each of its tokens covers.

        A character belongs to the first token that reaches its end, white space to the token after it.
        """
        key = ("spans", self._chat is not None, context, continuation)
        if key in self._known:
            found: tuple[Continuation, list[tuple[int, int]]] = self._known[key]
            return found
        text = context + continuation
        special = self.tok_encode(text[:64]) != self.tok_encode(text[:64], add_special_tokens=False)
        whole = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)
        context_ids, ids = self._split(context, continuation, whole["input_ids"])
        prompt = self._prompt(context) if self._chat else []
        # a generation prompt ends with white space, which lm-eval would score with the continuation
        if prompt and whole["input_ids"][: len(prompt)] == prompt:
            context_ids, ids = prompt, whole["input_ids"][len(prompt) :]
        if whole["input_ids"][len(context_ids) :] != ids:
            raise RuntimeError("the tokenizer's offsets are of other tokens than those that are scored")
        ends = [end - len(context) for _, end in whole["offset_mapping"][len(context_ids) :]]
        self._known[key] = Continuation(context_ids, ids), _spans(ends, len(continuation))
        return self._known[key]

    def _split(self, context: str, continuation: str, whole: list[int]) -> tuple[list[int], list[int]]:
        """lm-eval's tokens of both, where `whole` are the tokens of both as one text."""
        self._texts = {context + continuation: whole}
        if self._is_plain(context) and context == context.rstrip():  # a prompt that was generated from
            self._texts[context] = self._prompt(context)
        try:
            return self._encode_pair(context, continuation)
        finally:
            self._texts = {}

    # ---------------------------------------------------------------------- tokens

    @property
    def eot_token_id(self) -> int:
        found: int = self.tokenizer.eos_token_id
        return found

    @property
    def prefix_token_id(self) -> int:
        first: int | None = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else first

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        if add_special_tokens is None and string in self._texts:
            return self._texts[string]
        if add_special_tokens is None and string.startswith(self._first[0]):
            add_special_tokens = False
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        found: list[int] = self.tokenizer.encode(string, **special)
        return found

    def _prompt(self, text: str) -> list[int]:
        """Tokens of a prompt to generate from. HFLM compares it with another first token than `tok_encode` does."""
        if text not in self._known:
            begun = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
            self._known[text] = self.tokenizer(text, **({"add_special_tokens": False} if begun else {}))["input_ids"]
        found: list[int] = self._known[text]
        return found

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair = ("pair", context, continuation)
        if pair not in self._known:
            self._known[pair] = super()._encode_pair(context, continuation)
        found: tuple[list[int], list[int]] = self._known[pair]
        return found

    def _tokenised(self, texts: Collection[str]) -> dict[str, list[int]]:
        """`tok_encode` of many texts at once."""
        found: dict[str, list[int]] = {}
        # texts of a chat begin with the first token themselves
        begun = [text for text in texts if text.startswith(self._first[0])]
        for some, special in ((begun, {"add_special_tokens": False}), (set(texts) - {"", *begun}, {})):
            ordered = sorted(some)
            for begin in range(0, len(ordered), _TEXTS):
                part = ordered[begin : begin + _TEXTS]
                ids = self.tokenizer(part, return_attention_mask=False, **special)["input_ids"]
                found |= zip(part, ids, strict=True)
        return found

    def _is_plain(self, text: str) -> bool:
        """Whether the text begins with no special token, for which lm-eval tokenises differently from call to call."""
        return not text.startswith(self._first)

    @cached_property
    def _first(self) -> tuple[str, ...]:
        first = self.tokenizer.decode(self.prefix_token_id, skip_special_tokens=False)
        return first, self.tokenizer.bos_token or first


def _count(engine: Engine, requests: Sequence[Any], calls: int) -> None:
    """The documents of these requests come next, in so many calls for the engine."""
    engine.tally.begin(len({(request.task_name, request.doc_id) for request in requests}), calls)


def _text(tokenizer: Any, response: Response, stops: Sequence[str], think_end: str | int | None) -> str:
    """A response's text as HFLM returns it: after the reasoning that `think_end` ends, up to the first stop string."""
    tokens = response.tokens
    if isinstance(think_end, int) and think_end in tokens:
        tokens = tokens[len(tokens) - tokens[::-1].index(think_end) :]
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    if isinstance(think_end, int):
        text, think_end = text.lstrip(), None  # HFLM strips it also where no reasoning has ended
    found: str = postprocess_generated_text(text, stop=list(stops), think_end_token=think_end)
    return found


def _spans(ends: Sequence[int], length: int) -> list[tuple[int, int]]:
    """(begin, end) of tokens that end at these characters of a text; together they are the whole text."""
    spans, covered = list[tuple[int, int]](), 0
    for end in ends:
        end = min(max(end, covered), length)
        spans.append((covered, end))
        covered = end
    if spans:
        spans[-1] = (spans[-1][0], length)
    return spans
