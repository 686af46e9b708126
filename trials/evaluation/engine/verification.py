"""Checks that the fast engine gives the model's own numbers: some requests go both ways before all of them go one way.

An architecture may read positions, masks or its cache in a way of its own (windows, offsets, latents, scalings beyond a
length), and no configuration says so reliably. A probe is therefore as long as the requests get. If the fast engine differs
from plain passes by more than rounding, or raises, HFEngine answers: several rows at once if that gives the numbers of one
row, one row at a time otherwise.
"""

import itertools
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch

from trials.evaluation.engine import shared_prefix
from trials.evaluation.engine.greedy import Row
from trials.evaluation.engine.hf_engine import HFEngine
from trials.evaluation.engine.protocol import Answer, Continuation, Decoding, Prompt
from trials.models import oom

Item = TypeVar("Item")
Answers = Callable[[Sequence[Continuation]], Sequence[Answer]]

_STEPS = 12
"""Tokens that a probe generates."""
_GOLD = 64
"""Tokens of a gold solution that a probe scores."""
_ROUNDING = {torch.float32: (3e-4, 3e-5), torch.float16: (0.05, 0.01), torch.bfloat16: (0.25, 0.05)}
"""By type, the largest rounding error in nats: in any case, and per token. bfloat16 has logits of 16 to 32 in eighths."""

_log = logging.getLogger(__name__)

_known: WeakKeyDictionary[Any, dict[Any, "Route"]] = WeakKeyDictionary()
"""By base model, then by the kind of request and the sizes that its probe has."""


@dataclass(frozen=True)
class Route:
    """Which engine answers requests of a kind."""

    rows: int | None = None
    """Rows at once through HFEngine; None: the fast engine."""
    reason: str = ""

    def __str__(self) -> str:
        if self.rows is None:
            return "exact"
        return f"hflm{', one row at a time' if self.rows == 1 else ''}: {self.reason}"


def route(model: Any, kind: str, sizes: tuple[Any, ...], find: Callable[[], Route]) -> Route:
    """The route of requests of this kind and these sizes; `find` is called once for them and the model."""
    known, key = _known.setdefault(model, {}), (kind, *sizes)
    if key not in known:
        known[key] = find()
        if known[key].rows is not None:
            _log.warning("%s of %s by %s", kind, type(model).__name__, known[key])
    return known[key]


def likelihoods(plain: HFEngine, fast: Answers, requests: Sequence[Continuation], row: Sequence[Continuation]) -> Route:
    """Which engine answers log-likelihoods. `row`: requests of the fast engine's longest row of several."""
    longest, *others = _some(requests, [len(context) + len(tokens) for context, tokens in requests])
    if reason := _rescaled(plain.core, len(longest.context) + len(longest.tokens)):
        return Route(1, reason)
    beside = [one for one in requests if one.context == longest.context and one.tokens != longest.tokens][-1:]
    some = [longest, *beside, *others, row[0], row[-1]]
    # contexts that begin alike, for the pass that rows share
    alike = [longest, *beside, Continuation(longest.context[:-1] or longest.context, longest.tokens)]
    alone = {_key(one): _sum_of_one(plain, one) for one in (*some, *alike)}

    def off(answers: Answers, probes: Sequence[Continuation]) -> str | None:
        pairs = zip(probes, answers(probes), strict=True)
        gaps = [_gap(plain, nats, alone[_key(one)], len(one.tokens)) for one, (nats, _) in pairs if _key(one) in alone]
        return f"log-likelihoods differ by {max(gaps):.2g} nats" if any(gaps) else None

    return _decided(plain, lambda: off(fast, [*some, *row]) or off(fast, alike), lambda: off(plain.log_likelihoods, some))


def generation(
    plain: HFEngine,
    fast: Callable[[list[Row], int], None],
    prompts: Sequence[Prompt],
    decoding: Decoding,
    obstacle: str | None,
) -> Route:
    """Which engine generates, and scores the gold solutions along. `obstacle`: why the fast engine cannot."""
    most = decoding.max_tokens
    steps = min(most, _STEPS)
    longest, *others = _some(prompts, [len(prompt.tokens) for prompt in prompts])
    if reason := _rescaled(plain.core, len(longest.tokens) + most):
        return Route(1, reason)
    length = len(longest.tokens) + most - steps
    stretched = Prompt((longest.tokens * (length // len(longest.tokens) + 1))[:length], longest.gold)
    few = Decoding(steps, (), decoding.settings)

    def generated(some: Sequence[Row]) -> list[_Made]:
        return _generated(plain, [row.prompt for row in some], few)

    rows = [Row(prompt.tokens, gold=prompt.gold) for prompt in (stretched, *others)]
    alone = [generated([row])[0] for row in rows]
    probes = [_plain_row(plain, row, [token for token, _ in made]) for row, made in zip(rows, alone, strict=True)]

    def off(found: list[Row]) -> str | None:
        return next((reason for one, row in zip(probes, found, strict=True) if (reason := _off(plain, one, row))), None)

    def run() -> str | None:
        found = [Row(probe.prompt, gold=probe.gold) for probe in probes]
        fast(found, steps)
        return off(found)

    def together() -> str | None:
        golds = plain.token_bits([Continuation(probe.prompt, probe.gold) for probe in probes])
        at_once = generated(probes)
        gap = max(_apart(plain, made, other) for made, other in zip(at_once, alone, strict=True))
        pairs = zip(at_once, golds, strict=True)
        found = [Row([], generated=[token for token, _ in made], gold_nats=_nats(bits)) for made, bits in pairs]
        return f"log-likelihoods of responses differ by {gap:.2g} nats" if gap else off(found)

    return _decided(plain, run, together, obstacle)


def _rescaled(model: Any, length: int) -> str | None:
    """Why a row's numbers depend on the rows beside it at this length. No probe covers every mixture of lengths."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    for settings in [rope] if "rope_type" in rope else rope.values():  # one, or one for each type of layer
        if settings and settings.get("rope_type") in ("longrope", "dynamic"):
            made_for = settings.get("original_max_position_embeddings") or config.max_position_embeddings
            if length > made_for:
                return f"beyond {made_for} tokens its rotary embedding follows the longest row of a batch"
    return None


def _plain_row(plain: HFEngine, row: Row, tokens: list[int]) -> Row:
    """The row with a response, and with a gold whose tokens are scored by a plain pass."""
    gold = (row.gold or row.prompt)[: min(_GOLD, max(1, plain.max_length - len(row.prompt)))]
    (bits,) = plain.token_bits([Continuation(row.prompt, gold)])
    return Row(row.prompt, generated=tokens, gold=gold, gold_nats=_nats(bits))


def _off(plain: HFEngine, expected: Row, row: Row) -> str | None:
    """How a row's response and gold differ from the expected ones by more than rounding."""
    gap = max(_gap(plain, mine, theirs, 1) for mine, theirs in zip(row.gold_nats, expected.gold_nats, strict=True))
    if gap:
        return f"log-likelihoods after a prompt differ by {gap:.2g} nats"
    pairs = zip(expected.generated, row.generated, strict=False)
    at = next((i for i, (theirs, mine) in enumerate(pairs) if theirs != mine), None)
    if at is None:
        return None if expected.generated == row.generated else "responses end at other tokens"
    # two tokens of equal likelihood up to rounding are both right
    before = [*expected.prompt, *expected.generated[:at]]
    mine, theirs = (_sum_of_one(plain, Continuation(before, [one.generated[at]])) for one in (row, expected))
    return "responses are other ones" if _gap(plain, mine, theirs, 1) else None


def _sum_of_one(plain: HFEngine, request: Continuation) -> float:
    """The continuation's log-likelihood in nats, from a plain pass over one row."""
    return sum(_nats(plain.token_bits([request])[0]))


def _nats(bits: Sequence[float]) -> list[float]:
    return [-math.log(2) * one for one in bits]


def _decided(
    plain: HFEngine, fast: Callable[[], str | None], together: Callable[[], str | None], obstacle: str | None = None
) -> Route:
    """`fast`, and `together` for the plain engine with several rows at once, return what is wrong with their numbers."""
    reason = obstacle or shared_prefix.obstacle(plain.core) or _tried(fast)
    if reason is None:
        return Route()
    rows = plain.batch_size
    return Route(rows if rows == 1 or _tried(together) is None else 1, reason)


def _tried(find: Callable[[], str | None]) -> str | None:
    """The finding, or the error while looking for it; None if nothing is wrong."""
    try:
        return find()
    except Exception as error:  # an architecture's code may raise anything when it is run in a way that it does not know
        if oom.is_out_of_memory(error):
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


_Made = list[tuple[int, float]]
"""A response of the plain engine, up to an end token: its tokens, and the log-likelihood of each."""


def _apart(plain: HFEngine, one: _Made, other: _Made) -> float:
    """The largest difference of log-likelihoods within the tokens that both responses begin with."""
    common = itertools.takewhile(lambda pair: pair[0][0] == pair[1][0], zip(one, other, strict=False))
    return max((_gap(plain, mine, theirs, 1) for (_, mine), (_, theirs) in common), default=0.0)


def _generated(plain: HFEngine, prompts: Sequence[list[int]], decoding: Decoding) -> list[_Made]:
    """Responses of the plain engine to the prompts as one batch."""
    outputs: dict[str, Any] = {"return_dict_in_generate": True, "output_logits": True}
    if plain.core.generation_config.max_new_tokens is not None:  # takes precedence over max_length
        outputs["max_new_tokens"] = decoding.max_tokens
    with torch.no_grad():
        made = plain.run_generate(prompts, decoding, **outputs)
    tokens = made.sequences[:, max(map(len, prompts)) :]
    logits = torch.stack(made.logits, dim=1).float().log_softmax(dim=-1)
    nats = torch.zeros_like(tokens, dtype=torch.float32)
    if len(logits) == len(prompts):  # else they are of several beams
        nats = logits.gather(2, tokens[:, : logits.shape[1], None])[..., 0]
    found, last = [], plain.end_tokens()
    for row, values in zip(tokens.tolist(), nats.tolist(), strict=True):
        end = next((place for place, token in enumerate(row, 1) if token in last), len(row))
        found.append(list(zip(row[:end], values, strict=False)))
    return found


def _some(items: Sequence[Item], lengths: Sequence[int]) -> list[Item]:
    """The longest, the first and the shortest, each once."""
    order = sorted(range(len(items)), key=lambda i: -lengths[i])
    return [items[i] for i in dict.fromkeys([order[0], 0, order[-1]])]


def _gap(plain: HFEngine, one: float, other: float, tokens: int) -> float:
    """The difference of two sums over so many tokens; 0 if it may be rounding."""
    kind = plain.model.dtype
    always, each = _ROUNDING[kind]
    gap = abs(one - other)
    return 0.0 if gap <= always + each * tokens + torch.finfo(kind).eps * abs(other) else gap


def _key(request: Continuation) -> tuple[tuple[int, ...], ...]:
    return tuple(request.context), tuple(request.tokens)
