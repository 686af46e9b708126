"""LoRA adapters: initialisation, target modules, derived adapters."""
