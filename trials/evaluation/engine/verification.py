"""Whether the engine's numbers are the model's own: some of the requests go both ways before all of them go one way.

An architecture may read positions, masks or its past in a way of its own (windows, offsets, latents, scalings beyond a
length), and no configuration says so reliably. A probe is therefore as long as the requests get. Where the engine differs
from plain passes by more than rounding, or raises, lm-eval's own model answers: several rows at once where that gives the
numbers of one row, one row at a time otherwise.
"""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from lm_eval.models.huggingface import HFLM

from trials.evaluation.engine import shared_prefix
from trials.evaluation.engine.greedy import Row
from trials.evaluation.engine.hf_lm import Scorer
from trials.models import oom

Item = TypeVar("Item")
Request = tuple[Any, list[int], list[int]]
"""As lm-eval has it: a name, the context's tokens and the continuation's."""
Answers = Sequence[tuple[float, bool]]
"""Log-likelihoods in nats, and whether every token is the likeliest."""

_STEPS = 12
"""Tokens that a probe generates."""
_GOLD = 64
"""Tokens of a gold solution that a probe scores."""
_ROUNDING = {torch.float32: (3e-4, 3e-5), torch.float16: (0.05, 0.01), torch.bfloat16: (0.25, 0.05)}
"""By type, nats that rounding may come to: in any case, and for each token. bfloat16 has logits of 16 to 32 in eighths."""

_log = logging.getLogger(__name__)

_known: WeakKeyDictionary[Any, dict[Any, "Way"]] = WeakKeyDictionary()
"""By base model, then by the kind of request and the sizes that its probe has."""


@dataclass(frozen=True)
class Way:
    """Who answers requests of a kind."""

    rows: int | None = None
    """Rows at once through lm-eval's own model; None: the engine."""
    reason: str = ""

    def __str__(self) -> str:
        if self.rows is None:
            return "exact"
        return f"hflm{', one row at a time' if self.rows == 1 else ''}: {self.reason}"


def way(model: Any, kind: str, sizes: tuple[Any, ...], find: Callable[[], Way]) -> Way:
    """What was found earlier for requests of the kind and of these sizes, or is found now."""
    known, key = _known.setdefault(model, {}), (kind, *sizes)
    if key not in known:
        known[key] = find()
        if known[key].rows is not None:
            _log.warning("%s of %s by %s", kind, type(model).__name__, known[key])
    return known[key]


def likelihoods(
    scorer: Scorer, engine: Callable[[list[Request]], Answers], requests: Sequence[Request], row: list[Request]
) -> Way:
    """The way of log-likelihoods, none of whose contexts has to be cut. `row`: those of the engine's longest row of several."""
    longest, *others = _some(requests, [len(context) + len(ids) for _, context, ids in requests])
    name, context, ids = longest
    if reason := _rescaled(scorer.core, len(context) + len(ids)):
        return Way(1, reason)
    beside = [request for request in requests if request[1] == context and request[2] != ids][-1:]
    some = [longest, *beside, *others, row[0], row[-1]]
    alike = [longest, *beside, (name, context[:-1] or context, ids)]  # contexts that begin alike are run once
    plain = {_key(one): sum(_nats(scorer.bits([([*one[1], *one[2]], len(one[2]))])[0])) for one in (*some, *alike)}

    def off(answer: Callable[[list[Request]], Answers], asked: list[Request]) -> str | None:
        pairs = zip(asked, answer(asked), strict=True)
        gaps = [_gap(scorer, nats, plain[_key(one)], len(one[2])) for one, (nats, _) in pairs if _key(one) in plain]
        return f"log-likelihoods differ by {max(gaps):.2g} nats" if any(gaps) else None

    def stock(asked: list[Request]) -> Answers:
        found: Answers = HFLM._loglikelihood_tokens(scorer, asked, disable_tqdm=True)
        return found

    return _decided(scorer, lambda: off(engine, [*some, *row]) or off(engine, alike), lambda: off(stock, some))


@dataclass(frozen=True)
class Decoding:
    """How responses are generated."""

    most: int
    """Tokens of a response."""
    settings: Mapping[str, Any]
    """Of transformers' generate, besides."""
    obstacle: str | None
    """Why the engine does not know it."""


def generation(scorer: Scorer, engine: Callable[[list[Row], int], None], rows: Sequence[Row], decoding: Decoding) -> Way:
    """The way of responses, and of the gold solutions that are scored along with them."""
    steps, most = min(decoding.most, _STEPS), decoding.most
    longest, *others = _some(rows, [len(row.prompt) for row in rows])
    if reason := _rescaled(scorer.core, len(longest.prompt) + most):
        return Way(1, reason)
    length = len(longest.prompt) + most - steps
    stretched = Row((longest.prompt * (length // len(longest.prompt) + 1))[:length], gold=longest.gold)

    def generated(some: Sequence[Row]) -> list[_Made]:
        return _generated(scorer, [row.prompt for row in some], steps, decoding.settings)

    alone = [generated([row])[0] for row in (stretched, *others)]
    probes = [_plain(scorer, row, made.tokens) for row, made in zip((stretched, *others), alone, strict=True)]

    def off(found: list[Row]) -> str | None:
        return next((reason for one, row in zip(probes, found, strict=True) if (reason := _off(scorer, one, row))), None)

    def run() -> str | None:
        found = [Row(probe.prompt, gold=probe.gold) for probe in probes]
        engine(found, steps)
        return off(found)

    def stock() -> str | None:
        golds = scorer.bits([([*probe.prompt, *probe.gold], len(probe.gold)) for probe in probes])
        together = generated(probes)
        gap = max(made.gap(scorer, other) for made, other in zip(together, alone, strict=True))
        rows = [Row([], generated=made.tokens, gold_nats=_nats(bits)) for made, bits in zip(together, golds, strict=True)]
        return f"log-likelihoods of responses differ by {gap:.2g} nats" if gap else off(rows)

    return _decided(scorer, run, stock, decoding.obstacle)


def _rescaled(model: Any, length: int) -> str | None:
    """Why a row's numbers depend on the rows beside it at this length: no probe meets every mixture of lengths."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    for settings in [rope] if "rope_type" in rope else rope.values():  # one, or one for each type of layer
        if settings and settings.get("rope_type") in ("longrope", "dynamic"):
            made_for = settings.get("original_max_position_embeddings") or config.max_position_embeddings
            if length > made_for:
                return f"beyond {made_for} tokens its rotary embedding follows the longest row of a batch"
    return None


def _plain(scorer: Scorer, row: Row, tokens: list[int]) -> Row:
    """The row with a response, and with a gold whose tokens are scored by a plain pass."""
    gold = (row.gold or row.prompt)[: min(_GOLD, max(1, scorer.max_length - len(row.prompt)))]
    (bits,) = scorer.bits([([*row.prompt, *gold], len(gold))])
    return Row(row.prompt, generated=tokens, gold=gold, gold_nats=_nats(bits))


def _off(scorer: Scorer, plain: Row, row: Row) -> str | None:
    """How a row's response and gold differ from the plain ones by more than rounding."""
    gap = max(_gap(scorer, mine, theirs, 1) for mine, theirs in zip(row.gold_nats, plain.gold_nats, strict=True))
    if gap:
        return f"log-likelihoods after a prompt differ by {gap:.2g} nats"
    at = next((i for i, (a, b) in enumerate(zip(plain.generated, row.generated, strict=False)) if a != b), None)
    if at is None:
        return None if plain.generated == row.generated else "responses end at other tokens"
    before = [*plain.prompt, *plain.generated[:at]]
    mine, theirs = (_nats(scorer.bits([([*before, one.generated[at]], 1)])[0])[0] for one in (row, plain))
    return "responses are other ones" if _gap(scorer, mine, theirs, 1) else None


def _nats(bits: Sequence[float]) -> list[float]:
    return [-math.log(2) * one for one in bits]


def _decided(
    scorer: Scorer, engine: Callable[[], str | None], stock: Callable[[], str | None], obstacle: str | None = None
) -> Way:
    """`engine` and `stock`, several rows at once, say what is wrong with their numbers."""
    reason = obstacle or shared_prefix.obstacle(scorer.core) or _tried(engine)
    if reason is None:
        return Way()
    rows = scorer.batch_size
    return Way(rows if rows == 1 or _tried(stock) is None else 1, reason)


def _tried(find: Callable[[], str | None]) -> str | None:
    """What is wrong: what was found, or that it could not be."""
    try:
        return find()
    except Exception as error:  # whatever an architecture's code raises where it is run in a way that it does not know
        if oom.is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


@dataclass(frozen=True)
class _Made:
    """A response of lm-eval's own model, up to an end token, and the log-likelihood of each of its tokens."""

    tokens: list[int]
    nats: list[float]

    def gap(self, scorer: Scorer, other: "_Made") -> float:
        """By how much they differ in what they have in common."""
        pairs = list(zip(self.tokens, self.nats, other.tokens, other.nats, strict=False))
        common = itertools.takewhile(lambda pair: pair[0] == pair[2], pairs)
        return max((_gap(scorer, mine, theirs, 1) for _, mine, _, theirs in common), default=0.0)


def _generated(scorer: Scorer, prompts: Sequence[list[int]], steps: int, settings: Mapping[str, Any]) -> list[_Made]:
    """What lm-eval's own model generates for the prompts at once."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), scorer.tokenizer.pad_token_id)
    seen = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):
        ids[i, longest - len(prompt) :], seen[i, longest - len(prompt) :] = torch.tensor(prompt), 1
    own = scorer.core.generation_config.max_new_tokens  # which takes precedence over max_length
    made: Any = HFLM._model_generate(
        scorer,
        context=ids.to(scorer.device),
        attention_mask=seen.to(scorer.device),
        max_length=longest + steps,
        stop=[],
        return_dict_in_generate=True,
        output_logits=True,
        **({} if own is None else {"max_new_tokens": steps}),
        **settings,
    )
    tokens = made.sequences[:, longest:]
    logits = torch.stack(made.logits, dim=1).float().log_softmax(dim=-1)
    nats: list[list[float]] = [[] for _ in prompts]
    if len(logits) == len(prompts):  # and not those of several beams
        nats = logits.gather(2, tokens[:, : logits.shape[1], None])[..., 0].tolist()
    ended = (list(_until(row, scorer.end_tokens())) for row in tokens.tolist())
    return [_Made(row, values[: len(row)]) for row, values in zip(ended, nats, strict=True)]


def _until(tokens: list[int], ends: set[int | None]) -> Iterator[int]:
    for token in tokens:
        yield token
        if token in ends:
            return


def _some(items: Sequence[Item], lengths: Sequence[int]) -> list[Item]:
    """The longest, the first and the shortest, each once."""
    order = sorted(range(len(items)), key=lambda i: -lengths[i])
    return [items[i] for i in dict.fromkeys([order[0], 0, order[-1]])]


def _gap(scorer: Scorer, one: float, other: float, tokens: int) -> float:
    """By how much sums over so many tokens differ; 0 where it may be rounding."""
    kind = scorer.model.dtype
    always, each = _ROUNDING[kind]
    gap = abs(one - other)
    return 0.0 if gap <= always + each * tokens + torch.finfo(kind).eps * abs(other) else gap


def _key(request: Request) -> tuple[tuple[int, ...], ...]:
    return tuple(request[1]), tuple(request[2])
