"""vLLM's interface without a model: each response is the prompt's own first tokens. Its process starts at once."""

from types import SimpleNamespace

__version__ = "light"


class SamplingParams(SimpleNamespace):
    pass


class LLM:
    def __init__(self, **settings):
        self.most = settings["max_model_len"]

    def generate(self, prompts, sampling, lora_request, use_tqdm):
        assert "" not in [*sampling.stop, *sampling.stop_token_ids]  # None is a TypeError
        tokens = [one["prompt_token_ids"][: sampling.max_tokens] for one in prompts]
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=one, finish_reason="length")]) for one in tokens]
