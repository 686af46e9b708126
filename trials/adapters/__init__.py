"""LoRA adapters: how they begin, which layers get one, and what is derived from them."""
