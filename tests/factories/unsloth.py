"""Worlds for tests: a package with the signatures that Unsloth documents (2026), over the same transformers and PEFT."""

DOCUMENTED = """
import json, os, sys
if {"transformers", "peft"} & set(sys.modules):
    sys.exit("imported too late")
print("an advertisement on standard output")

class FastLanguageModel:
    @staticmethod
    def from_pretrained(model_name="", max_seq_length=2048, dtype=None, load_in_4bit=True, load_in_8bit=False,
        load_in_16bit=False, full_finetuning=False, token=None, device_map="sequential", rope_scaling=None, fix_tokenizer=True,
        trust_remote_code=False, use_gradient_checkpointing="unsloth", resize_model_vocab=None, revision=None,
        use_exact_model_name=False, offload_embedding=False, float32_mixed_precision=None, fast_inference=False,
        gpu_memory_utilization=0.5, float8_kv_cache=False, random_state=3407, max_lora_rank=64, disable_log_stats=True,
        qat_scheme=None):
        asked = {name: str(value) for name, value in locals().items()} | {"compiles": "TORCHDYNAMO_DISABLE" not in os.environ}
        if out := os.environ.get("ASKED"):
            open(out, "w").write(json.dumps(asked))
        if os.environ.get("DIES"):
            os._exit(7)
        if os.environ.get("HANGS"):
            print("hanging", file=sys.stderr, flush=True)
            import time; time.sleep(600)
        from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
        quantisation = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype) if load_in_4bit else None
        model = AutoModelForCausalLM.from_pretrained(model_name, revision=revision or "main", dtype=dtype,
            quantization_config=quantisation, device_map=device_map)
        return model.requires_grad_(False), AutoTokenizer.from_pretrained(model_name)

    @staticmethod
    def get_peft_model(model, r=16, target_modules=("q_proj",), lora_alpha=16, lora_dropout=0.0, bias="none",
        layers_to_transform=None, layers_pattern=None, use_gradient_checkpointing="unsloth", random_state=3407,
        max_seq_length=2048, use_rslora=False, modules_to_save=None, init_lora_weights=True, loftq_config={},
        temporary_location="_unsloth_temporary_saved_buffers", qat_scheme=None, target_parameters=None,
        ensure_weight_tying=False):
        import peft
        return peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", r=r, target_modules=target_modules,
            lora_alpha=lora_alpha, lora_dropout=lora_dropout, bias=bias, layers_to_transform=layers_to_transform,
            use_rslora=use_rslora))
"""
