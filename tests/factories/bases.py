"""Worlds for tests: bases."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

MICRO = Path(__file__).parents[2] / "trials" / "micro" / "hub" / "micro"


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """The rows of a query or key projection as llama.cpp orders them: the halves of each head interleaved."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(model: LlamaForCausalLM, path: Path, kind: type = np.float32, scaled: bool = False) -> None:
    """A Llama as llama.cpp's converter writes it, in 32 or 16 bits; the tokenizer stays beside it."""
    from gguf import GGUFWriter

    config = model.config
    writer = GGUFWriter(path, "llama")
    writer.add_name("miniature")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if scaled:
        writer.add_tensor("rope_freqs.weight", np.ones(config.head_dim // 2, dtype=np.float32))
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, weight in model.state_dict().items():
        name, values = name.removesuffix(".weight"), weight.numpy()
        if name == "lm_head" and config.tie_word_embeddings:
            continue
        if name.startswith("model.layers."):
            _, _, block, inner = name.split(".", 3)
            name = f"blk.{block}.{names[inner]}"
            heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(names[inner])
            values = values if heads is None else permuted(values, heads)
        else:
            name = whole[name]
        writer.add_tensor(f"{name}.weight", values.astype(kind if values.ndim > 1 else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def beside_tokenizer(folder: Path, model: Path, **kind) -> Path:
    """A folder that holds the model as a GGUF file and its tokenizer alone."""
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    write_gguf(AutoModelForCausalLM.from_pretrained(model), folder / "model.gguf", **kind)
    return folder


SMALL = {"vocab_size": 1536, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GATED = {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2}
OLD = {"vocab_size": 1536, "n_layer": 2, "n_head": 4}
LLAMA_LIKE = {"qkv": "q_proj k_proj v_proj", "output": "o_proj", "mlp": "gate_proj up_proj down_proj"}
NEOX_LIKE = {"qkv": "query_key_value", "output": "dense", "mlp": "dense_h_to_4h dense_4h_to_h"}
ARCHITECTURES = {
    "llama": (GATED, LLAMA_LIKE),
    "qwen2": (GATED, LLAMA_LIKE),
    "qwen3": (GATED, LLAMA_LIKE),
    "mistral": (GATED, LLAMA_LIKE),
    "gemma": ({**GATED, "head_dim": 8}, LLAMA_LIKE),
    "gemma3_text": ({**GATED, "head_dim": 8}, LLAMA_LIKE),
    "olmo2": ({**GATED, "pad_token_id": 1, "eos_token_id": 0}, LLAMA_LIKE),
    "phi": ({**SMALL, "intermediate_size": 64}, {"qkv": "q_proj k_proj v_proj", "output": "dense", "mlp": "fc1 fc2"}),
    "phi3": ({**GATED, "pad_token_id": 0}, {"qkv": "qkv_proj", "output": "o_proj", "mlp": "gate_up_proj down_proj"}),
    "gpt_neox": ({**SMALL, "intermediate_size": 64}, NEOX_LIKE),
    "falcon": (SMALL, NEOX_LIKE),
    "bloom": ({**OLD, "hidden_size": 32}, NEOX_LIKE),
    "gpt2": ({**OLD, "n_embd": 32}, {"qkv": "c_attn", "output": "attn.c_proj", "mlp": "c_fc mlp.c_proj"}),
    "gptj": (
        {**OLD, "n_embd": 32, "rotary_dim": 4},
        {"qkv": "q_proj k_proj v_proj", "output": "out_proj", "mlp": "fc_in fc_out"},
    ),
    "mpt": (
        {"vocab_size": 1536, "d_model": 32, "n_layers": 2, "n_heads": 4},
        {"qkv": "Wqkv", "output": "out_proj", "mlp": "up_proj down_proj"},
    ),
}


def miniature(kind: str, **more) -> Any:
    """The architecture in miniature, its weights drawn at random."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **ARCHITECTURES[kind][0], **more))
