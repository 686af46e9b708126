"""Every causal architecture of the installed transformers in miniature: two blocks, random weights, micro's tokenizer.

A configuration class's own defaults are shrunk field by field: SIZES holds one size for each name that fields of that kind
have, so that sizes which depend on one another still fit. OWN holds what an architecture needs besides, VARIANTS settings
that decide how attention works and that no default has, and UNBUILT what is left out and why.
"""

import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from trials import micro

LAYERS = 2
WINDOW = 16
POSITIONS = 512
SPREAD = 0.2
"""Standard deviation of the weights: the usual 0.02 gives nearly uniform logits, which hide what is wrong."""

SIZES: list[tuple[str, int]] = [
    (r"(num_)?key_value_heads|num_kv_heads|swa_num_key_value_heads|num_query_groups|linear_num_key_heads", 2),
    (r".*(attention|attn)_heads|n_heads?|num_heads|linear_num_value_heads|linear_num_heads|index_n_heads", 4),
    (r"(decoder_|encoder_|num_|num_decoder_|num_encoder_)(hidden_)?(layers|blocks)|n_layers?|num_layers_per_stack", LAYERS),
    (r"hidden_size|d_model|n_embd|emb_dim|embedding_dim|embedding_size|.*_embedding_size|word_embed_proj_dim|lru_width", 64),
    (r"attention_hidden_size|backbone_hidden_size|router_hidden_size", 64),
    (r"(swa_|linear_(key_|value_)?|index_)?head_dim|d_head|dim_head|attention_head_size|qk_nope_head_dim|v_head_dim", 16),
    (r"kv_channels|query_pre_attn_scalar|hidden_size_per_layer_input", 16),
    (r"qk_rope_head_dim|rotary_dim", 8),
    (r"qk_head_dim", 24),
    (r".*(intermediate|ffn_hidden|feed_forward)_size(_mlp)?|(.*_)?ffn_dim|dim_ff|dff|d_inner", 128),
    (r".*(kv|q|o)_lora_rank|.*norm_rank|hc_lowrank|laurel_rank|adapter_rank", 16),
    (r"(num|n)_(routed_|local_)?experts|moe_num_experts", 4),
    (r"num_experts_per_tok(en)?|moe_topk|moe_k", 2),
    (r"(n|num|moe_num)_shared_experts|n_group|topk_group|num_expert_group|zero_expert_num", 1),
    (r"(max_(position_embeddings|target_positions|seq_len)|n_positions|n_ctx|context_length|model_max_length)", POSITIONS),
    (r"sliding_window(_size)?|window_size|attention_window_size|local_attention|keep_window_size|attention_chunk_size", WINDOW),
    (r"(mamba_)?(d_)?state(_size)?|mamba_d_state|ssm_state_size", 8),
    (r".*chunk_size", WINDOW),
    (r"first_k_dense_replace|num_dense_layers|num_nextn_predict_layers", 1),
    (r"(.*_)?vocab_size(_per_layer_input)?", 0),  # 0 stands for the tokenizer's
]

_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1}
_LOCAL = ["sliding_attention", "full_attention"]
_LINEAR = ["linear_attention", "full_attention"]

OWN: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "cohere_compass_text": {
        "layer_types": _LOCAL,
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in _LOCAL},
    },
    "cwm": {"layer_types": _LOCAL},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64},
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "falcon_h1": {"mamba_d_ssm": 128, **_MAMBA},
    "gemma3n_text": {
        "num_kv_shared_layers": 2,
        "num_hidden_layers": 4,
        "layer_types": [*_LOCAL, *_LOCAL],
        "activation_sparsity_pattern": [0.0] * 4,
        "intermediate_size": 128,
    },
    "gemma4_text": {"layer_types": _LOCAL, "per_layer_config": None},
    "gemma4_unified_text": {"layer_types": _LOCAL, "per_layer_config": None},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {**_MAMBA, "layer_types": _LINEAR},
    "hunyuan_v1_dense": {"head_dim": 16},
    "hunyuan_v1_moe": {"head_dim": 16},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 8, "use_mamba_kernels": False},
    "kimi_linear": {"layer_types": _LINEAR},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    "ministral": {"head_dim": 16},
    "nemotron": {"head_dim": 16, "num_key_value_heads": 2},
    "nemotron_h": {
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "n_groups": 1,
        "layers_block_type": ["linear_attention", "moe", "full_attention"],
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "num_hidden_layers": 3},
    "reformer": {"hash_seed": 1, "attn_layers": ["local", "lsh"], "axial_pos_shape": [16, 32], "axial_pos_embds_dim": [16, 48]},
    "xlstm": {"qk_dim_factor": 1.0},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "mamba_dt_rank": 8,
        "use_mamba_kernels": False,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""What an architecture needs besides; a recurrent one an attention, which its defaults have only behind the second block."""

_LONG = {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "rope_theta": 10000.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon-alibi": ("falcon", {"alibi": True}),
    "falcon-old": ("falcon", {"multi_query": False, "new_decoder_architecture": False}),
    "mistral-full": ("mistral", {"sliding_window": None}),
    "phi3-longrope": ("phi3", {"original_max_position_embeddings": 64, "rope_parameters": _LONG}),
    "llama-dynamic": ("llama", {"max_position_embeddings": 64, "rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}),
    "gpt2-scaled": ("gpt2", {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True}),
    "qwen2-window": ("qwen2", {"use_sliding_window": True, "layer_types": _LOCAL}),
}

_TOWER = "a part for images or sound that does not shrink by its fields; its language model is built by itself"
UNBUILT: dict[str, str] = {
    "blt": "reads bytes through parts of their own, and not a tokenizer's tokens",
    "dots3_note": "its sizes by layer cannot be read from the configuration as it is made",
    "dots3_note_text": "its sizes by layer cannot be read from the configuration as it is made",
    "fuyu": _TOWER,
    "gemma3": _TOWER,
    "gemma3n": "needs the package timm",
    "gemma4_assistant": "drafts for another model and does not run by itself",
    "gemma4_unified": _TOWER,
    "gemma4_unified_assistant": "drafts for another model and does not run by itself",
    "got_ocr2": _TOWER,
    "moshi": "goes on with sound",
    "moss_transcribe_diarize": _TOWER,
    "musicgen": "goes on with sound",
    "musicgen_melody": "goes on with sound",
    "qwen4_exp": "its defaults leave the layers' sizes open",
    "qwen4_exp_text": "its defaults leave the layers' sizes open",
}


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(Path(micro.__file__).parent / "hub" / "micro")


def names() -> list[str]:
    """All architectures and variants that are built, sorted."""
    return sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS} - set(UNBUILT))


def miniature(name: str, seed: int = 0, **fields: Any) -> Any:
    """The model, in float32 and evaluation mode; `fields` of its configuration may be set besides."""
    architecture, variant = VARIANTS.get(name, (name, {}))
    config = CONFIG_MAPPING[architecture](**{**shrunk(CONFIG_MAPPING[architecture]), **variant, **fields})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, SPREAD)
    return model.eval()


def save(name: str, folder: Path, **fields: Any) -> Path:
    """The model and the tokenizer as a folder that `base.model` may name."""
    miniature(name, **fields).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def shrunk(made: Any) -> dict[str, Any]:
    """The fields that a configuration of this class sets for a miniature, those of its parts among them."""
    taken = inspect.signature(made.__init__).parameters
    fields = dict(_small(taken))
    if "kv_lora_rank" in taken:  # latent attention: each head has keys of its own, and head_dim is its rotary part
        fields |= {name: size for name, size in (("num_key_value_heads", 4), ("head_dim", 8)) if name in taken}
    own = OWN.get(made.model_type, {})
    if "layer_types" not in own:
        fields |= _by_layer(made, taken)
    for kind in ("bos", "eos", "pad"):
        number = getattr(tokenizer(), f"{kind}_token_id")
        if f"{kind}_token_id" in taken:
            fields[f"{kind}_token_id"] = tokenizer().eos_token_id if number is None else number
    if "is_decoder" in taken:
        fields["is_decoder"] = True
    parts = {name: part for name, part in made.sub_configs.items() if name in taken and hasattr(part, "sub_configs")}
    return fields | {name: shrunk(_of_a_part(made, name, part)) for name, part in parts.items()} | own


def _of_a_part(made: Any, name: str, part: Any) -> Any:
    """The class of a part that may be of any class (AutoConfig): that of the default."""
    return type(getattr(made(), name)) if part is AutoConfig else part


def _small(taken: Any) -> Iterator[tuple[str, Any]]:
    for name, parameter in taken.items():
        if isinstance(parameter.default, bool) or not isinstance(parameter.default, int) or not parameter.default:
            continue
        size = next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)
        if size is not None:
            yield name, size or len(tokenizer())


def _by_layer(made: Any, taken: Any) -> dict[str, Any]:
    """What a list by layer says of the first layer and of the first that differs from it, in any of these lists."""
    config = made()
    count = getattr(config, "num_hidden_layers", None)
    lists = {
        name: list(value)
        for name in taken
        if isinstance(value := getattr(config, name, None), list | tuple) and value and len(value) == count
    }
    if not lists or count == LAYERS:
        return {}
    rows = list(zip(*lists.values(), strict=True))
    others = [row for row in rows if row != rows[0]]
    return {name: list(pair) for name, pair in zip(lists, zip(rows[0], (others or rows)[-1], strict=True), strict=True)}
