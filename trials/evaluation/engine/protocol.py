"""The interface between lm-eval's requests and whatever runs the model. Texts are token ids here; log-likelihoods are in nats.

lm_eval_adapter.py puts any engine behind lm-eval. fast_engine.py and hf_engine.py are the engines of this project.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Answer = tuple[float, bool]
"""A continuation's log-likelihood, and whether each of its tokens is the likeliest one. lm-eval's own form."""


class Continuation(NamedTuple):
    """A continuation to score after its context. Neither is empty; together they have `max_length` + 1 tokens at most."""

    context: list[int]
    tokens: list[int]


@dataclass(frozen=True)
class Prompt:
    """A prompt to answer."""

    tokens: list[int]
    gold: list[int] = field(default_factory=list)
    """A continuation that the engine may score in the same pass. Empty: none fits, or none is wanted."""


@dataclass(frozen=True)
class Decoding:
    """How responses are generated."""

    max_tokens: int
    stops: Sequence[str]
    """A response ends with the first of these strings, or with an end token."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of transformers' `generate`. Greedy decoding has no more than do_sample=False and temperature=0."""


@dataclass(frozen=True)
class Response:
    tokens: list[int]
    stopped: bool
    """Whether an end token or a stop string ended it, rather than `max_tokens`."""
    gold_bits: list[float] = field(default_factory=list)
    """Bits of each token of the prompt's gold continuation; empty if the engine did not score it."""


class Tally:
    """Counts the documents whose requests are answered: the adapter says what comes, the engine what it has answered."""

    def __init__(self) -> None:
        self.report: Callable[[int], None] = lambda documents: None
        """Called with the number of answered documents whenever it grows."""
        self._before = self._documents = self._requests = self._answered = 0

    def begin(self, documents: int, requests: int) -> None:
        """So many documents and requests come in the next call of the engine; those of the last call are answered."""
        self._before += self._documents
        self._documents, self._requests, self._answered = documents, requests, 0

    def add(self, requests: int) -> None:
        """The engine has answered so many more requests."""
        before, self._answered = self._share(), min(self._answered + requests, self._requests)
        if self._share() > before:
            self.report(self._before + self._share())

    def _share(self) -> int:
        # the requests of a document are answered together, as a rule
        return self._documents * self._answered // self._requests if self._requests else 0


class Engine(Protocol):
    """Runs a model. Answers come in the order of the requests."""

    tally: Tally
    """Gets the number of answered requests while the engine works."""

    @property
    def tokenizer(self) -> Any:
        """A Hugging Face tokenizer with a padding token."""

    @property
    def max_length(self) -> int:
        """Tokens that the model takes at once."""

    @property
    def notes(self) -> Mapping[str, str]:
        """By kind of request, who answered it. Empty for an engine that never hands requests on."""

    def log_likelihoods(self, requests: Sequence[Continuation]) -> list[Answer]: ...

    def token_bits(self, requests: Sequence[Continuation]) -> list[list[float]]:
        """Bits of each token of every continuation, from a softmax in float32."""

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Response]: ...
