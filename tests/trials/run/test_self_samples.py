"""Replay keeps the rows of the mix; self-samples are generated once a base, also by concurrent processes."""

import threading
from collections import Counter

import pytest
import torch

from tests.factories.rows import Letters, data
from trials import mix
from trials.errors import InputError
from trials.hub.hub import Hub, find_source
from trials.ledger import storage
from trials.ledger.record import Ledger
from trials.models import base
from trials.run import self_samples
from trials.spec import Base, Data, TrialSpec

BASE = Base(model="micro", dtype="float32", quantization="none")
REPLAY = {"source": "micro/gsm8k", "share": 0.2}


@pytest.fixture(scope="module")
def loaded():
    torch.set_num_threads(1)
    return base.load(BASE, Hub())


@pytest.fixture
def short(monkeypatch):
    """Blocks of two texts of eight tokens, for speed."""
    monkeypatch.setattr(self_samples, "TOKENS", 8)
    monkeypatch.setattr(self_samples, "_BLOCK", 2)


def build(**values) -> list[mix.Example]:
    return mix.build(data(**values), Hub(), Letters())


def own(count: int) -> list[tuple[list[int], str]]:
    return [([1, 2, number], f"text {number}") for number in range(count)]


def with_parts(spec: TrialSpec, **sections) -> TrialSpec:
    return TrialSpec.model_validate({**spec.model_dump(mode="json"), **sections})


@pytest.mark.parametrize("how", ["substitute", "add"])
def test_zero_share_is_no_replay_in_rows_and_key(spec, how):
    none = {"source": "micro/gsm8k", "share": 0.0, "how": how}
    assert build(samples=20, mix={"micro/alpaca": 1.0}, replay=none) == build(samples=20, mix={"micro/alpaca": 1.0})
    parts = spec.data.model_dump(mode="json")
    alone = with_parts(spec, data={**parts, "mix": {"micro/alpaca": 1.0}})
    assert with_parts(spec, data={**parts, "mix": {"micro/alpaca": 1.0}, "replay": none}).key == alone.key
    some = {**none, "share": 0.1}
    assert with_parts(spec, data={**parts, "mix": {"micro/alpaca": 1.0}, "replay": some}).key != alone.key


def test_substitution_keeps_the_total_and_addition_keeps_the_mix():
    substituted = Counter(row.source for row in build(mix={"micro/alpaca": 1.0}, replay=REPLAY))
    assert substituted == {"micro/alpaca": 32, "micro/gsm8k": 8}
    added = Counter(row.source for row in build(mix={"micro/alpaca": 1.0}, replay={**REPLAY, "how": "add"}))
    assert added == {"micro/alpaca": 40, "micro/gsm8k": 10}


def test_added_rows_keep_the_rows_of_the_mix_in_order():
    mixed = {"micro/alpaca": 0.6, "micro/gsm8k": 0.4}
    alone = build(samples=37, mix=mixed)
    for share in (0.01, 0.1, 0.25, 0.5, 0.9):
        rows = mix.build(
            data(samples=37, mix=mixed, replay={"source": "self", "share": share, "how": "add"}), Hub(), Letters(), own=own
        )
        assert [row for row in rows if row.source != "self"] == alone


def test_added_rows_keep_the_number_of_mix_rows():
    for samples in (1, 2, 7, 500):
        for percent in range(1, 100):
            settings = Data.model_validate(
                {
                    "samples": samples,
                    "mix": {"a": 0.5, "b": 0.3, "c": 0.2},
                    "replay": {"source": "r", "share": percent / 100, "how": "add"},
                }
            )
            order = mix.order_of_rows(settings)
            assert len(order) - order.count("r") == samples
            assert len(order) == settings.rows


def test_every_prefix_of_a_mix_with_replay_has_its_shares():
    assert build(samples=13, replay={"source": "self", "share": 0.0}) == build(samples=40)[:13]
    small, large = (mix.order_of_rows(data(samples=n, replay={"source": "r", "share": 0.3})) for n in (50, 200))
    assert large[:50] == small
    for n in range(1, 201):
        assert abs(large[:n].count("r") - 0.3 * n) <= 1


def test_the_bases_own_text_is_a_source_and_needs_a_base():
    rows = mix.build(data(samples=10, mix={"self": 1.0}), Hub(), Letters(), own=own)
    assert [row.input_ids for row in rows] == [ids for ids, _ in own(10)]
    assert all(row.labels == row.input_ids for row in rows)
    assert mix.heldout(data(mix={"self": 1.0}), Hub(), Letters()) == {}
    with pytest.raises(InputError, match="no base is loaded"):
        mix.build(data(samples=1, mix={"self": 1.0}), Hub(), Letters())
    named = {"dataset": "micro/gsm8k", "instruction": "{{question}}", "response": "{{answer}}"}
    with pytest.raises(InputError, match="give your source another name"):
        find_source(data(sources={"self": named}), "self")


def test_base_samples_from_its_beginning_token_at_temperature_one(loaded, short, tmp_path):
    rows = self_samples.samples(loaded, BASE, Ledger(tmp_path), 6)
    tokenizer = loaded.tokenizer
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    assert all(ids[0] == start and len(ids) <= 9 for ids, _ in rows)
    assert len({text for _, text in rows}) > 3
    assert all(tokenizer.decode(ids, skip_special_tokens=True) == text for ids, text in rows)


def test_samples_follow_the_models_probabilities(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(self_samples, "TOKENS", 1)
    monkeypatch.setattr(self_samples, "_BLOCK", 4_000)
    firsts = torch.tensor([ids[1] for ids, _ in self_samples.samples(loaded, BASE, Ledger(tmp_path), 4_000)])
    start = torch.tensor([[self_samples.samples(loaded, BASE, Ledger(tmp_path), 1)[0][0][0]]])
    expected = loaded.model(input_ids=start).logits[0, -1].float().softmax(-1)
    seen = torch.bincount(firsts, minlength=len(expected)) / len(firsts)
    assert float((seen - expected).abs().max()) < 4 * 0.5 / 4_000**0.5


def test_fewer_texts_are_a_prefix_and_a_block_is_sampled_once(loaded, short, place, monkeypatch):
    ledger = Ledger(place)
    five = self_samples.samples(loaded, BASE, ledger, 5)
    assert storage.names(self_samples.place(loaded, BASE, ledger)) == [f"block-{n:05}.json" for n in range(3)]
    monkeypatch.setattr(self_samples, "_sampled", lambda *_: pytest.fail("sampled again"))
    assert self_samples.samples(loaded, BASE, ledger, 3) == five[:3]
    assert self_samples.samples(loaded, BASE, Ledger(place), 5) == five
    assert list(ledger) == [], "not a record"


def test_block_depends_on_its_number_and_base_only(loaded, short, tmp_path):
    first, second = Ledger(tmp_path / "a"), Ledger(tmp_path / "b")
    whole = self_samples.samples(loaded, BASE, first, 4)
    for number in (1, 0):  # what a killed process had left is kept, and only the rest is made
        path = self_samples.place(loaded, BASE, second) / f"block-{number:05}.json"
        storage.create(path, (self_samples.place(loaded, BASE, first) / path.name).read_text())
        assert self_samples.samples(loaded, BASE, second, 4) == whole
    other = BASE.model_copy(update={"dtype": "bfloat16"})
    assert self_samples.place(loaded, other, first) != self_samples.place(loaded, BASE, first)


def test_concurrent_processes_use_the_first_block(loaded, short, place, monkeypatch):
    both, results, turn = threading.Barrier(2), [], iter(range(100))

    def different(*_):
        both.wait(timeout=30)  # neither has kept its block yet
        return [{"ids": [1, next(turn)], "text": "x"}] * 2

    monkeypatch.setattr(self_samples, "_sampled", different)
    threads = [
        threading.Thread(target=lambda: results.append(self_samples.samples(loaded, BASE, Ledger(place), 2))) for _ in range(2)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert results[0] == results[1] == self_samples.samples(loaded, BASE, Ledger(place), 2)


def test_unreadable_block_is_named(loaded, short, tmp_path):
    ledger = Ledger(tmp_path)
    storage.write_text(self_samples.place(loaded, BASE, ledger) / "block-00000.json", '{"rows": [')
    with pytest.raises(InputError, match=r"block-00000.json: not a whole block"):
        self_samples.samples(loaded, BASE, ledger, 1)


def test_sampling_leaves_the_global_random_state_unchanged(loaded, short, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    self_samples.samples(loaded, BASE, Ledger(tmp_path), 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_trial_replays_self_samples_and_records_them(another, spec, short):
    parts = spec.data.model_dump(mode="json")
    wanted = with_parts(spec, data={**parts, "samples": 16, "replay": {"source": "self", "share": 0.25}})
    record = another().run(wanted)
    assert record.failure is None
    assert record.rows == {"micro/alpaca": 6, "micro/gsm8k": 6, "self": 4}
    assert record.overlap["self"]["rows"] >= 4
    assert record.overlap["micro/alpaca"] == {"rows": 6, "overlapping": 0}
