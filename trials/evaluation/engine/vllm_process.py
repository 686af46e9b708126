"""The process of vllm_server.py: `python vllm_process.py SETTINGS DESCRIPTOR`, in vLLM's own environment.

Each line of standard input is a request: prompts (token ids), max_tokens, stops, end_tokens, and the folder and number of an
adapter. Each line that it writes is the responses, [tokens, stopped] in the prompts' order, or an error's name and message.
It imports nothing of this program, which that environment does not have.
"""

import json
import os
import sys
from typing import Any, TextIO

os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # a second process would outlive this one


class Resident:
    """vLLM, asleep between requests where it runs on a GPU: its weights are in the machine's memory, its cache is dropped."""

    def __init__(self, settings: dict[str, Any]):
        import torch
        import vllm
        from vllm.config.lora import MaxLoRARanks

        self.version, self._sleeps = vllm.__version__, torch.cuda.is_available()
        rank = settings.pop("rank")
        self._llm = vllm.LLM(
            **settings,
            enable_lora=True,
            max_lora_rank=min(one for one in MaxLoRARanks.__args__ if one >= rank),
            enable_sleep_mode=self._sleeps,
            generation_config="vllm",  # not the model's own settings: the program passes on what counts
            disable_log_stats=True,
            seed=0,
        )
        self._asleep = False

    def responses(self, request: dict[str, Any]) -> list[tuple[list[int], bool]]:
        import vllm
        from vllm.lora.request import LoRARequest

        if self._asleep:
            self._llm.wake_up()
            self._asleep = False
        sampling = vllm.SamplingParams(
            temperature=0.0,
            max_tokens=request["max_tokens"],
            stop=request["stops"],
            stop_token_ids=request["end_tokens"],
            include_stop_str_in_output=True,
            skip_special_tokens=False,  # a stop string may be one
        )
        adapter = None
        if "adapter" in request:
            adapter = LoRARequest(f"adapter-{request['id']}", request["id"], request["adapter"])
        prompts = [{"prompt_token_ids": tokens} for tokens in request["prompts"]]
        found = [one.outputs[0] for one in self._llm.generate(prompts, sampling, lora_request=adapter, use_tqdm=False)]
        if self._sleeps:
            self._llm.sleep(level=1)
            self._asleep = True
        return [(list(one.token_ids), one.finish_reason == "stop") for one in found]


def main(settings: dict[str, Any], answers: TextIO) -> None:
    resident = None
    for line in sys.stdin:
        try:
            resident = resident or Resident(settings)
            message = {"responses": resident.responses(json.loads(line)), "version": resident.version}
        except Exception as error:  # noqa: BLE001  # sent to the program, which raises it
            message = {"failed": type(error).__name__, "message": " ".join(str(error).split())[:2000]}
        print(json.dumps(message), file=answers, flush=True)


if __name__ == "__main__":  # vLLM may start processes that import this file
    main(json.loads(sys.argv[1]), os.fdopen(int(sys.argv[2]), "w"))
