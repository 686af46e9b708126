"""A trial is checked against its base's layers, positions and special tokens before weights are read."""

import json

import pytest

from orchestrator.planning.plan import plan
from tests.fuzz import miniatures
from trials.adapters import target_modules
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.models import layout, meta_model
from trials.spec import Base, Lora, TrialSpec


def spec(model="base", **changes) -> TrialSpec:
    fields = {
        "base": {"model": str(model), "quantization": "nf4", "dtype": "float32"},
        "data": {"samples": 16, "mix": {"micro/alpaca": 1.0}, "max_length": 128},
        "lora": {"rank": 4},
        "eval": {"commonsense": {"preset": "micro_swag", "documents": 8}},
    }
    for path, value in changes.items():
        section, name = path.split("__")
        fields[section][name] = value
    return TrialSpec.model_validate(fields)


def of(name: str, **fields) -> layout.Layout:
    return meta_model.layout(miniatures.miniature(name, **fields))


TOKENS = layout.Tokens("<|end|>", [], [], [], 512)


@pytest.mark.parametrize(
    ("name", "blocks"), [("qwen3_5_text", [0, 1]), ("qwen3_next", [0, 1]), ("deepseek_v3", [0, 1]), ("bert", [0, 1])]
)
def test_qkv_selects_layers_of_every_block(name, blocks):
    found = layout.adapted(Lora(target_modules="qkv"), of(name))
    assert sorted({int(target_modules.BLOCK.match(layer)[2]) for layer in found}) == blocks


def test_notes_name_blocks_without_an_adapter():
    (note,) = [line for line in layout.notes(spec(), of("bamba")) if "block" in line]
    assert note.startswith("lora.target_modules qkv: block 0 of 2 gets no adapter; its linear layers are down_proj")


def test_notes_name_experts_without_adapter_or_quantisation():
    found = layout.notes(spec(lora__target_modules="all-linear"), of("mixtral"))
    assert len(found) == 2
    assert all("the experts' model.layers.*.mlp.experts.down_proj" in line for line in found)


def test_llama_has_no_notes():
    names = {name for name, _ in miniatures.miniature("llama").named_modules() if name.endswith("_proj")}
    found = of("llama")
    assert found.linear.keys() == names
    quantised = layout.Layout(**{**vars(found), "four_bit": sorted(names)})
    assert layout.notes(spec(lora__target_modules="all-linear"), quantised) == []


@pytest.mark.parametrize(
    ("name", "lora", "message"),
    [
        ("llama", {"target_modules": ["q_prj"]}, "no q_prj; did you mean 'q_proj'"),
        ("llama", {"layers": [99]}, "lora.layers: the base has 2 blocks, 0 to 1, but got 99"),
        ("bamba", {"layers": [0]}, "none of lora.target_modules is in block 0; the blocks that have some are 1"),
        ("mixtral", {"target_modules": "mlp"}, "has no mlp; .* the experts' .* get no adapter"),
        ("deepseek_v2", {"target_modules": "mlp"}, "has no mlp; .* PEFT puts no adapter on layers of these names"),
        ("deepseek_v2", {"method": "oft", "block_size": 2}, "PEFT takes the inputs of .*kv_b_proj for images"),
        ("gpt2", {"method": "shira", "rank": 1}, "PEFT has it for plain linear layers, and .*c_attn is a Conv1D"),
        ("llama", {"method": "oft", "block_size": 7}, "lora.block_size: 7 does not divide the 64 inputs of .*; 4 or 8 would"),
    ],
)
def test_adapter_without_layers_is_refused(name, lora, message):
    with pytest.raises(InputError, match=message):
        layout.adapted(Lora(**lora), of(name))


@pytest.mark.parametrize(
    ("name", "positions"), [("gpt2", 64), ("opt", 64), ("gpt_neo", 64), ("bloom", None), ("llama", None), ("git", 512)]
)
def test_max_length_beyond_learned_positions_is_refused(name, positions):
    fields = {} if positions in (None, 512) else {"n_positions" if name == "gpt2" else "max_position_embeddings": 64}
    found = of(name, **fields)
    assert found.positions == positions
    if positions == 64:
        with pytest.raises(InputError, match=r"data.max_length: 128 tokens, but base has 64 positions; it can be at most 64"):
            layout.check(spec(), (found, TOKENS))
        layout.check(spec(data__max_length=64), (found, TOKENS))


def test_token_beyond_the_embedding_is_refused_if_it_is_fed():
    found = of("llama")
    for tokens in (layout.Tokens("<e>", ["<e>"], [], [], 512), layout.Tokens("</s>", ["<b>"], ["<b>"], [], 512)):
        with pytest.raises(InputError, match="has no row in the embedding, which has"):
            layout.check(spec(), (found, tokens))
    chat = layout.Tokens("</s>", ["<u>"], [], ["<u>"], 512)
    layout.check(spec(), (found, chat))
    with pytest.raises(InputError, match="'<u>' has no row"):
        layout.check(spec(data__template="chat"), (found, chat))
    with pytest.raises(InputError, match="no end token"):
        layout.check(spec(), (found, layout.Tokens(None, [], [], [], 512)))


def test_end_token_falls_back_to_the_configuration(tmp_path):
    folder = miniatures.save("llama", tmp_path / "base")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    end = settings.pop("eos_token")
    path.write_text(json.dumps(settings))
    _, tokens = layout.of(Base(model=str(folder), dtype="float32"), Hub())
    assert tokens.end == end


def test_layout_is_cached_by_the_configuration(tmp_path, monkeypatch):
    folder = miniatures.save("falcon", tmp_path / "base")
    base, hub = Base(model=str(folder), dtype="float32"), Hub()
    first = layout.of(base, hub)
    monkeypatch.setattr(layout, "_found", {})
    monkeypatch.setattr(meta_model, "read", lambda base, hub: pytest.fail("built again"))
    assert layout.of(base, hub) == first
    assert first[0].four_bit == []
    assert "0 of 8 linear layers (0% of the weights) are in 4 bits" in layout.notes(spec(), first[0])[0]
    (folder / "config.json").write_text((folder / "config.json").read_text() + "\n")
    with pytest.raises(pytest.fail.Exception, match="built again"):
        layout.of(base, hub)


def test_plan_shows_notes_and_refuses_impossible_trials(parts, write, tmp_path):
    from orchestrator.config.load import load

    parts["base"] = {"model": str(miniatures.save("mixtral", tmp_path / "base")), "dtype": "float32"}
    parts["lora"] = {"target_modules": "all-linear"}
    assert any("experts" in note for note in plan(load(write(parts)), tmp_path).notes)
    parts["lora"] = {"target_modules": ["nope"]}
    with pytest.raises(InputError, match=r"lora.target_modules: the base has no nope"):
        plan(load(write(parts)), tmp_path)


@pytest.mark.parametrize(
    ("name", "fails", "reason"),
    [
        ("prophetnet", {"evaluation", "training"}, "ValueError: `position_ids` are incorrect"),
        ("reformer", {"training"}, "ValueError: If training, make sure that config.axial_pos_shape"),
        ("xlstm", {"training"}, "RuntimeError: one of the variables needed for gradient computation"),
        ("cpmant", {"evaluation", "training"}, "the logits of a token depend on later tokens"),
    ],
)
def test_architecture_that_fails_on_a_few_tokens_is_refused(name, fails, reason, tmp_path):
    base = Base(model=str(miniatures.save(name, tmp_path / "base")), dtype="float32")
    found = meta_model.read(base, Hub())
    assert found[0].failures.keys() == fails
    with pytest.raises(InputError, match=f"fails with this architecture on a few tokens and random weights .{reason}"):
        layout.check(spec(), found)
    baseline = spec(data__samples=0)
    if "evaluation" in fails:
        with pytest.raises(InputError, match="evaluation fails"):
            layout.check(baseline, found)
    else:
        layout.check(baseline, found)


def test_nonpositive_length_is_refused(tmp_path):
    base = Base(model=str(miniatures.save("xlnet", tmp_path / "base")), dtype="float32")
    with pytest.raises(InputError, match=r"lm-eval takes the length -1 .* set max_position_embeddings"):
        layout.check(spec(), meta_model.read(base, Hub()))


def test_responses_leave_room_for_a_prompt(parts, write, tmp_path):
    from orchestrator.config.load import load

    base = str(miniatures.save("gpt2", tmp_path / "base", n_positions=48))
    parts["base"] = {"model": base, "dtype": "float32"}
    parts["data"] |= {"max_length": 48}
    with pytest.raises(InputError, match=r"eval.math: task micro_gsm generates up to 48 tokens, but the base takes 48"):
        plan(load(write(parts)), tmp_path)
