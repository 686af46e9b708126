"""vLLM's interface, as far as vllm_process.py uses it, on transformers: greedy responses, a row at a time."""

from types import SimpleNamespace

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

__version__ = "fake"
GIVEN = {"enable_lora": True, "generation_config": "vllm", "disable_log_stats": True, "seed": 0}


class SamplingParams(SimpleNamespace):
    pass


class LLM:
    def __init__(self, *, model, dtype, max_model_len, max_lora_rank, enable_sleep_mode, **settings):
        assert settings == GIVEN
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.most, self.rank = max_model_len, max_lora_rank
        self.can_sleep, self.asleep, self.turns = enable_sleep_mode, False, []

    def sleep(self, level):
        assert self.can_sleep and not self.asleep
        self.asleep = True
        self.turns.append(f"sleep {level}")

    def wake_up(self):
        assert self.asleep
        self.asleep = False
        self.turns.append("wake")

    @torch.no_grad()
    def generate(self, prompts, sampling, lora_request, use_tqdm):
        assert (sampling.temperature, use_tqdm, self.asleep) == (0.0, False, False)
        model = self.model
        if lora_request is not None:
            model = PeftModel.from_pretrained(
                AutoModelForCausalLM.from_pretrained(self.model.name_or_path), lora_request.lora_path
            )
            assert model.peft_config["default"].r <= self.rank
        return [SimpleNamespace(outputs=[self._response(model, one["prompt_token_ids"], sampling)]) for one in prompts]

    def _response(self, model, prompt, sampling):
        tokens = []
        while len(tokens) < sampling.max_tokens:
            assert len(prompt) + len(tokens) < self.most
            logits = model(torch.tensor([[*prompt, *tokens]])).logits[0, -1]
            tokens.append(int(logits.argmax()))
            text = self.tokenizer.decode(tokens)
            if tokens[-1] in sampling.stop_token_ids or any(stop in text for stop in sampling.stop):
                return SimpleNamespace(token_ids=tokens, finish_reason="stop")
        return SimpleNamespace(token_ids=tokens, finish_reason="length")
