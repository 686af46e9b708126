"""Worlds for tests: micro with a chat template."""

import shutil
from pathlib import Path

from transformers import AutoTokenizer

from tests.factories.bases import MICRO

CHAT = (
    "{% for message in messages %}{{ message.role }}:\n{{ message.content | trim }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:\n{% endif %}"
)
"""Each message ends with the end token, and the prompt with white space, as in ChatML."""
BEGUN = "{{ eos_token }}" + CHAT
"""Begins with the token that lm-eval takes for the first one, as Llama's template does."""
STRICT = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
"""Refuses a system message, as Gemma's template does."""
DATED = "Today is {{ strftime_now('%d %b %Y') }}.\n" + CHAT
THINKING = CHAT + "{% if enable_thinking is defined and not enable_thinking %}no thoughts\n{% endif %}"


def chat_micro(folder: Path, template: str | dict[str, str] = CHAT) -> Path:
    """Micro's weights in the folder `chat-micro`, with this template, or with templates by name."""
    made = folder / "chat-micro"
    shutil.copytree(MICRO, made, ignore=shutil.ignore_patterns("alpaca", "cs", "gsm8k", "swag"))
    tokenizer = AutoTokenizer.from_pretrained(MICRO)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(made)
    return made
