from types import SimpleNamespace


def LoRARequest(name, number, path):
    assert number >= 1
    return SimpleNamespace(lora_name=name, lora_int_id=number, lora_path=path)
