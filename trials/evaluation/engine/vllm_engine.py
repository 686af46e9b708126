"""The engine `vllm`: vLLM generates the responses, the fast engine answers all other requests.

vLLM rounds otherwise than transformers, so its responses are its own: the engine is in a trial's key, and gain and forgetting
are measured against a baseline of the same engine.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.protocol import Decoding, Prompt, Response
from trials.evaluation.engine.verification import Route
from trials.evaluation.engine.vllm_server import VllmServer


class VllmEngine(FastEngine):
    """`model` is the base with the adapter of the folder `adapter`, or without one: both say what the server runs."""

    def __init__(self, model: Any, tokenizer: Any, batch_size: int, server: VllmServer, adapter: Path | None):
        super().__init__(model, tokenizer, batch_size)
        self._server, self._adapter = server, adapter
        self._responses: str | None = None

    @property
    def notes(self) -> dict[str, str]:
        return super().notes | ({"generation": self._responses} if self._responses else {})

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding) -> list[Response]:
        if obstacle := self._obstacle(prompts, decoding):
            found = super().generate(prompts, decoding)
            self._responses = str(Route(self.batch_size, obstacle))
            return found
        request = {
            "prompts": [prompt.tokens for prompt in prompts],
            "max_tokens": self._max_tokens(decoding),
            "stops": list(decoding.stops),
            "end_tokens": sorted(token for token in self.plain.end_tokens() if token is not None),
        }
        answers, version = self._server.generate(request, self._adapter)
        self._responses = f"vllm {version}"
        self.tally.add(len(prompts))
        return [Response(tokens, stopped) for tokens, stopped in answers]

    def _obstacle(self, prompts: Sequence[Prompt], decoding: Decoding) -> str | None:
        """Why vLLM does not answer these prompts; None if it does."""
        if decoding.settings.get("do_sample"):
            return "the task samples its responses"
        if not all(prompt.tokens for prompt in prompts):
            return "an empty prompt"
        return self._unknown_settings(decoding.settings)
