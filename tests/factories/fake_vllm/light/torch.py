"""As much of torch as vllm_process.py uses: a machine without a GPU."""

from types import SimpleNamespace

cuda = SimpleNamespace(is_available=lambda: False)
