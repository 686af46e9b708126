"""Worlds for tests: bases."""

from pathlib import Path

import numpy as np
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

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
