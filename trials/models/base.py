"""Loads a base model and its tokenizer, and checks that a trial can tune it."""

import inspect
import re
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trials.data import chat_template
from trials.errors import InputError
from trials.hub import identity
from trials.hub.hub import Hub, is_commit
from trials.mix import Example
from trials.models import devices, gguf, pickles
from trials.spec import Base, Data

# PEFT asks for it in each training, and a user can do nothing about it
warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)


@dataclass
class LoadedBase:
    model: Any
    tokenizer: Any
    checksum: str | None

    def check_ids(self, rows: Sequence[Example]) -> None:
        """Raises InputError for a row with a token id beyond the embedding."""
        size = self.model.get_input_embeddings().num_embeddings
        for row in rows:
            if (largest := max(row.input_ids)) >= size:
                raise InputError(
                    f"source {row.source!r}: a row holds the token {self.tokenizer.convert_ids_to_tokens(largest)!r}, number "
                    f"{largest} of the tokenizer, and the base's embedding has {size} rows"
                )


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def quantization_config(base: Base) -> BitsAndBytesConfig | None:
    if base.quantization == "none":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=base.quantization,
        bnb_4bit_use_double_quant=base.double_quantization,
        bnb_4bit_compute_dtype=getattr(torch, base.dtype),
    )


def check(base: Base, hub: Hub) -> None:
    """Raises InputError if the model does not exist or no trial can tune it; reads only its configuration."""
    if base.dtype == "auto":
        devices.check(base.dtype)
    pickles.check(base, hub)
    if base.gguf is None or gguf.file(base, hub, fetch=False):  # else the configuration comes with the file, at loading
        _check_causal(base, configuration(base, hub))


def configuration(base: Base, hub: Hub) -> Any:
    """The model's configuration; raises InputError if it cannot be read."""
    try:
        if base.gguf is not None and (file := gguf.file(base, hub)):
            return AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        return AutoConfig.from_pretrained(hub.locate(base.model), revision=base.revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(
                f"base.model {base.model!r} needs code of its own repository (trust_remote_code), which is never run here; "
                "use a model whose architecture transformers knows"
            ) from error
        raise hub.missing("base.model", base.model, error, base.revision) from error


def dropouts(model: Any) -> list[str]:
    """Names of the model's settings that make it draw random numbers in training, such as attention_dropout."""
    kinds = {
        kind
        for module in model.modules()
        for kind in type(module).__mro__
        if kind.__module__.startswith("transformers.models.")
    }
    code = "\n".join(map(inspect.getsource, kinds))
    settings = model.config.get_text_config().to_dict().items()
    # only names in the modules' own code: a configuration may have settings of other models, such as a classifier's dropout
    return [
        name
        for name, value in settings
        if re.search("drop|jitter", name) and isinstance(value, float) and value and re.search(rf"\b{name}\b", code)
    ]


def _check_causal(base: Base, config: Any) -> None:
    named = config.architectures or []
    causal = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or (named and not any(name in causal for name in named)):
        kind = f"{config.model_type}, {', '.join(named)}" if named else config.model_type
        raise InputError(
            f"base.model {base.model!r} is no causal language model ({kind}): it cannot be tuned to continue a text"
        )


def check_template(base: Base, data: Data, tokenizer: Any) -> None:
    """Raises InputError if data.template is chat and the base's tokenizer has no chat template."""
    if data.template == "chat" and not tokenizer.chat_template:
        raise InputError(
            f"data.template: chat, but the tokenizer of {base.model} has no chat template; use template alpaca or plain, "
            "or an instruct model"
        )


def tokenizer(base: Base, hub: Hub) -> Any:
    """The model's tokenizer, with a padding token; raises InputError if it cannot be read."""
    arguments = {"pretrained_model_name_or_path": hub.locate(base.model), "revision": base.revision or "main"}
    if base.gguf is not None:
        arguments = gguf.tokenizer_arguments(base, hub)
    try:
        made = AutoTokenizer.from_pretrained(**arguments, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise hub.missing("the tokenizer of base.model", base.model, error, base.revision) from error
    if made.eos_token is None:
        made.eos_token = _end_token(base, hub, made)
    if made.pad_token is None:
        made.pad_token = made.eos_token
    chat_template.bound()  # the tokenizer's chat template is untrusted code
    return made


def _end_token(base: Base, hub: Hub, tokenizer: Any) -> str | None:
    """The end token that the model's configuration gives by its id, if the tokenizer knows the id."""
    from transformers import GenerationConfig  # slow to import, and most tokenizers name their end token

    found = None
    if base.gguf is None:
        with suppress(OSError):  # a repository without generation_config.json; every one has config.json, read below
            place = hub.locate(base.model)
            found = GenerationConfig.from_pretrained(place, revision=base.revision or "main").eos_token_id
    if found is None:
        found = configuration(base, hub).get_text_config().eos_token_id
    for number in found if isinstance(found, list) else [found]:
        if isinstance(number, int) and 0 <= number < len(tokenizer):
            return str(tokenizer.convert_ids_to_tokens(number))
    return None


def load(base: Base, hub: Hub) -> LoadedBase:
    """Weights (frozen, evaluation mode) and tokenizer; raises InputError if the model does not exist or is pickled."""
    from trials.models import dequantize  # imports bitsandbytes, which checks need not wait for

    devices.check(base.dtype)
    check(base, hub)
    identity.check_base(base, hub)
    path, revision, checksum = hub.locate(base.model), base.revision or "main", None
    if base.gguf is not None:
        folder, checksum = gguf.converted(base, hub)
        path, revision = str(folder), "main"
    with pickles.refused(base.model):
        model = AutoModelForCausalLM.from_pretrained(
            path,
            revision=revision,
            dtype=getattr(torch, base.dtype),
            quantization_config=quantization_config(base),
            device_map={"": device()},  # bitsandbytes quantises on the device that the weights are loaded to
            trust_remote_code=False,
            use_safetensors=True,
        )
    model.requires_grad_(False)
    # On a CPU with bfloat16 instructions, bitsandbytes packs a layer's weights for them at the first evaluation, and unpacks
    # them rounded when training continues: a training would depend on the evaluations before it.
    layers: Iterable[Any] = model.modules()
    for layer in layers:
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    dequantize.unpack(model)
    return LoadedBase(model.eval(), _usable(tokenizer(base, hub), model), checksum or _checksum(path, revision, model))


def _usable(tokenizer: Any, model: Any) -> Any:
    """The tokenizer with a padding token inside the embedding. Any will do: padding is masked."""
    rows = model.get_input_embeddings().num_embeddings
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= rows:
        fits = tokenizer.eos_token_id is not None and tokenizer.eos_token_id < rows
        tokenizer.pad_token = tokenizer.eos_token if fits else tokenizer.convert_ids_to_tokens(0)
    return tokenizer


def _checksum(path: str, revision: str, model: Any) -> str | None:
    """The checksum of a local model's weights, or the commit of a model of the hub."""
    folder = Path(path)
    if folder.is_dir():
        return identity.of_weights(folder)
    # transformers does not always record the commit
    return revision if is_commit(revision) else getattr(model.config, "_commit_hash", None)
