"""A role's documents: named by a preset, prompted alike in a sample and in full, in halves, and taken apart."""

import inspect
import math
import os
from pathlib import Path

import lm_eval
import numpy as np
import pandas as pd
import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

from trials import benchmark_presets
from trials.errors import InputError
from trials.evaluation import aggregate, decomposition, evaluate
from trials.evaluation.engine.fast_engine import FastEngine
from trials.evaluation.engine.hf_engine import HFEngine
from trials.evaluation.engine.lm_eval_adapter import LmEvalAdapter
from trials.hub.hub import TASK_FOLDERS, Hub
from trials.models import base
from trials.spec import Base, Evaluation
from trials.tasks import splits
from trials.tasks.tasks import Tasks, check
from trials.yaml_file import YamlFile

STOCK = Path(lm_eval.__file__).parent / "tasks"


@pytest.fixture(scope="module")
def micro():
    return base.load(Base(model="micro", quantization="none", dtype="float32"), Hub())


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return Tasks(Hub())


@pytest.fixture(scope="module")
def documents(micro, tasks) -> dict[str, pd.DataFrame]:
    """24 documents of every benchmark of micro, by its preset."""
    found = {}
    for name in ("micro_swag", "micro_gsm", "micro_cs"):
        evaluation = Evaluation.model_validate({"preset": name, "documents": 24})
        found[name] = evaluate.evaluate(FastEngine(micro.model, micro.tokenizer, 8), name, evaluation, tasks)
    return found


# ---------------------------------------------------------------------- presets


def test_a_preset_is_its_fields_and_the_key_does_not_know_it(spec):
    written = {"task": "micro_gsm", "metric": "exact_match", "filter": "strict-match", "flexible": "flexible-extract"}
    written |= {"marker": "####", "shots": 2}
    named = spec.model_copy(update={"eval": {"math": Evaluation.model_validate("micro_gsm")}})
    assert named.key == spec.model_copy(update={"eval": {"math": Evaluation.model_validate(written)}}).key
    assert "preset" not in named.model_dump_json()
    fewer = Evaluation.model_validate({"preset": "gsm8k", "shots": 2, "documents": 40})
    assert (fewer.task, fewer.shots, fewer.documents, fewer.filter) == ("gsm8k", 2, 40, "strict-match")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("helaswag", "config.yaml:4:3: eval.math: no preset 'helaswag'; did you mean 'hellaswag'?"),
        ({"preset": "gsm8k", "task": "asdiv"}, "eval.math: preset 'gsm8k' has its task"),
        ({"preset": "gsm8k", "shot": 2}, "unknown key 'eval.math.shot'; did you mean 'shots'?"),
    ],
)
def test_a_preset_that_is_none_is_one_line_with_the_nearest_name(given, expected, spec, write):
    parts = {"base": {"model": "micro"}, "eval": {"math": given}, "data": {"samples": 0, "mix": {"micro/alpaca": 1.0}}}
    with pytest.raises(InputError) as caught:
        YamlFile(write(parts)).check(type(spec))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", sorted(benchmark_presets.benchmarks()))
def test_a_preset_has_the_shots_metric_and_filters_of_the_task_as_it_ships(name):
    evaluation = Evaluation.model_validate(name)
    for task in evaluation.tasks:
        folders = [*TASK_FOLDERS, STOCK / "hellaswag", STOCK / "gsm8k", STOCK / "mmlu" / "default"]
        shipped = load_yaml(next(path for folder in folders if (path := folder / f"{task}.yaml").exists()))
        assert evaluation.shots == (shipped.get("num_fewshot") or 0)
        assert evaluation.metric in [metric["metric"] for metric in shipped["metric_list"]]
        filters = {one["name"]: one["filter"][0]["regex_pattern"] for one in shipped.get("filter_list", [])}
        assert evaluation.filter in (filters or {"none": ""})
        if shipped["output_type"] == "generate_until":
            assert evaluation.flexible in filters
            assert filters[evaluation.filter].startswith(evaluation.marker), "strict match looks for the marker"


def test_a_laxer_filter_that_the_task_lacks_is_one_clear_line(tasks):
    evaluation = Evaluation.model_validate({"preset": "micro_gsm", "flexible": "flexible-extrakt"})
    with pytest.raises(InputError, match=r"eval.math: task micro_gsm measures .*; not exact_match,flexible-extrakt"):
        check("math", evaluation, tasks)


# ---------------------------------------------------------------------- few-shot rows


@pytest.fixture
def drawn(tmp_path, monkeypatch) -> Tasks:
    """micro_gsm as a task whose few-shot rows are drawn for every document, as stock GSM8K's are."""
    source = load_yaml(TASK_FOLDERS[0] / "micro_gsm.yaml")
    del source["fewshot_config"]
    (tmp_path / "drawn.yaml").write_text(yaml.safe_dump({**source, "task": "drawn"}))
    monkeypatch.setattr("trials.tasks.tasks.TASK_FOLDERS", [tmp_path])
    return Tasks(Hub())


def prompts(tasks: Tasks, samples: list[int] | None, **fields) -> dict[str, str]:
    """Prompt by question."""
    evaluation = Evaluation(task="drawn", metric="exact_match", filter="strict-match", **fields)
    task = tasks.build(evaluation)["drawn"]
    task.set_fewshot_seed(seed=evaluation.fewshot_seed)
    task.build_all_requests(samples=samples)
    return {instance.doc["question"]: instance.args[0] for instance in task.instances}


def test_a_task_goes_through_the_documents_that_lm_eval_would_go_through(tasks):
    (task,) = tasks.build(Evaluation.model_validate({"preset": "micro_gsm"})).values()
    for asked in ({}, {"limit": 3}, {"samples": [0, 4, 5, 9]}, {"samples": [2, 3, 7], "rank": 1, "world_size": 2}):
        usual = list(type(task).doc_iterator(task, **asked))
        for _ in range(2):
            found = list(task.doc_iterator(**asked))
            assert found == usual
            found[0][1].clear()  # whoever changes a document changes a copy


def test_a_sample_has_the_prompts_of_the_full_run_under_first_n_and_not_as_the_task_draws_them(drawn):
    sample = [3, 17, 90]
    full = prompts(drawn, None, fewshot="first_n")
    assert prompts(drawn, sample, documents=3).items() <= full.items(), "a sample's default"
    assert len({prompt.rpartition("Question:")[0] for prompt in full.values()}) == 1
    stock = prompts(drawn, None)
    assert len({prompt.rpartition("Question:")[0] for prompt in stock.values()}) > 300, "the default of a full run"
    assert not prompts(drawn, sample, fewshot="stock").items() <= stock.items()


def test_the_seed_of_the_shots_draws_others(micro, drawn):
    def bits(**fields) -> list[float]:
        fields |= {"task": "drawn", "metric": "exact_match", "filter": "strict-match", "documents": 3, "fewshot": "stock"}
        evaluation = Evaluation(**fields)
        return evaluate.evaluate(FastEngine(micro.model, micro.tokenizer, 3), "math", evaluation, drawn)["bits"].tolist()

    assert bits(fewshot_seed=1) != bits() == bits(fewshot_seed=1234)


def shown(tasks: Tasks, **fields) -> dict[str, list[str]]:
    """Few-shot rows by what they are shown before, of the first 40 documents."""
    evaluation = Evaluation.model_validate(fields)
    (task,) = tasks.build(evaluation).values()
    task.set_fewshot_seed(seed=evaluation.fewshot_seed)
    asked = list(task.eval_docs)[:40]
    texts = [task.fewshot_context(doc, evaluation.shots) for doc in asked]
    return {rows[-1]: rows[:-1] for text in texts if (rows := text.split("\n\n"))}


def test_rows_that_are_drawn_are_drawn_whatever_the_task_has(tasks):
    """micro_gsm itself shows the first rows, so that its seed moves nothing."""
    stock = [shown(tasks, preset="micro_gsm", fewshot="stock", fewshot_seed=seed) for seed in (1, 2)]
    assert stock[0] == stock[1]
    drawn = [shown(tasks, preset="micro_gsm", fewshot="drawn", fewshot_seed=seed) for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    for question, rows in drawn[0].items():
        assert len(rows) == 2
        assert all(other[question] != rows for other in drawn[2:])


@pytest.mark.parametrize("fewshot", ["first_n", "stock", "drawn"])
@pytest.mark.parametrize(("preset", "shots"), [("micro_swag", 4), ("micro_cs", 5)])
def test_no_document_is_shown_its_own_answer(tasks, preset, shots, fewshot):
    found = shown(tasks, preset=preset, shots=shots, fewshot=fewshot, fewshot_seed=3)
    assert {len(rows) for rows in found.values()} == {shots}
    assert not any(row.startswith(question) for question, rows in found.items() for row in rows)


@pytest.mark.parametrize(
    "fields",
    [
        {"preset": "micro_swag", "shots": 4, "fewshot": "stock"},
        {"preset": "micro_gsm", "fewshot": "drawn"},
        {"preset": "micro_cs", "shots": 5},
    ],
)
def test_micro_is_measured_with_rows_before_its_documents(micro, tasks, fields):
    evaluation = Evaluation.model_validate({**fields, "fewshot_seed": 3, "documents": 8})
    assert evaluate.evaluate(FastEngine(micro.model, micro.tokenizer, 8), "role", evaluation, tasks)["score"].mean() >= 0.5


def test_who_says_the_default_sampler_gets_the_same_key(spec):
    def key(**fields) -> str:
        return spec.model_copy(update={"eval": {"math": Evaluation.model_validate({"preset": "gsm8k", **fields})}}).key

    assert key() == key(fewshot="stock") != key(fewshot="first_n")
    assert key(documents=9) == key(documents=9, fewshot="first_n") != key(documents=9, fewshot="stock")
    assert len({key(), key(fewshot_seed=1), key(batch_size=8)}) == 3


# ---------------------------------------------------------------------- halves


def test_the_half_is_the_documents_own_and_neither_the_samples_nor_the_models(micro, tasks, documents):
    evaluation = Evaluation.model_validate({"preset": "micro_swag", "documents": 60, "seed": 5})
    others = evaluate.evaluate(FastEngine(micro.model, micro.tokenizer, 8), "role", evaluation, tasks)
    halved = dict(zip(others["doc_hash"], others["half"], strict=True))
    shared = [(row.half, halved[row.doc_hash]) for row in documents["micro_swag"].itertuples() if row.doc_hash in halved]
    assert shared
    assert all(one == other for one, other in shared)
    assert set(others["half"]) == {"search", "report"}


def test_documents_of_a_source_are_in_one_half_and_the_halves_are_about_equal():
    docs = [{"source_id": f"activitynet~v_{i // 3}", "ctx": f"{i}", "activity_label": "Skiing"} for i in range(3_000)]
    found = [splits.half(doc, doc_hash=str(i)) for i, doc in enumerate(docs)]
    assert all(len(set(found[i : i + 3])) == 1 for i in range(0, 3_000, 3))
    assert 1_350 < found.count("search") < 1_650, "1,000 throws of a coin, three documents each"
    by_hash = [splits.half({"question": "q"}, doc_hash=f"{i}") for i in range(2_000)]
    assert 900 < by_hash.count("search") < 1_100


@pytest.mark.parametrize("marked", ["[header] How to ski [title] Get skis.", "How to ski. Get skis."])
def test_where_source_id_is_missing_an_article_goes_by_its_title_and_a_video_by_its_activity(marked):
    assert splits.cluster({"ctx": marked, "activity_label": "Sports"}, "1").endswith("How to ski")
    assert splits.cluster({"ctx": "A man skis. he", "activity_label": "Skiing"}, "1") == "Skiing"
    assert splits.cluster({"question": "How to ski?"}, "abc") == "abc"


def test_no_half_of_hellaswag_holds_a_gold_ending_that_a_context_of_the_other_half_tells():
    mirror = os.environ.get("HUB_MIRROR")
    if not mirror or not (path := Path(mirror) / "Rowan/hellaswag/default/validation-00000-of-00001.parquet").exists():
        pytest.skip("HUB_MIRROR names no folder with Rowan/hellaswag: the halves of the real data are NOT checked")
    rows = pd.read_parquet(path).to_dict("records")
    found = [splits.half(row, str(i)) for i, row in enumerate(rows)]
    gold = [str(row["endings"][int(row["label"])]).strip() for row in rows]
    telling = [i for i in range(1, len(rows)) if len(gold[i - 1]) > 10 and gold[i - 1] in rows[i]["ctx"]]
    assert len(telling) > 100
    assert [i for i in telling if found[i] != found[i - 1]] == []
    assert 0.4 < found.count("search") / len(found) < 0.6


def test_the_scores_of_the_halves_make_the_score(documents):
    for frame in documents.values():
        own, details = aggregate.scores(frame)
        parts = aggregate.halves(frame)
        assert set(parts) == {"search", "report"}
        assert sum(part["score"].n for part in parts.values()) == own.n
        assert sum(part["score"].value * part["score"].n for part in parts.values()) == pytest.approx(own.value * own.n)
        assert all({"score", *details} >= set(part) > {"score"} for part in parts.values())


def test_a_half_without_documents_is_left_out(documents):
    frame = documents["micro_gsm"]
    assert set(aggregate.halves(frame[frame["half"] == "report"])) == {"report"}


def test_the_record_has_the_halves_of_every_role(worker, spec):
    record = worker.run(spec.baseline())
    for role, own in record.scores.items():
        assert sum(part["score"].n for part in record.halves[role].values()) == own.n


# ---------------------------------------------------------------------- how a generation ended


def requests(texts: list[str], **settings) -> list[Instance]:
    return [Instance("generate_until", {}, (text, settings), i) for i, text in enumerate(texts)]


@pytest.mark.parametrize("engine", [HFEngine, FastEngine])
def test_a_response_stopped_if_an_end_token_or_a_stop_string_came_before_the_cap(micro, tasks, engine):
    task = tasks.build(Evaluation.model_validate("micro_gsm"))["micro_gsm"]
    task.set_fewshot_seed(seed=1)
    task.build_all_requests(samples=list(range(9)))
    texts = [instance.args[0] for instance in task.instances]
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=4)
    # all end by their end token, some do, all by a stop string, none
    for until, cap, expected in (
        ("Question:", 48, {True}),
        ("Question:", 14, {True, False}),
        ("####", 40, {True}),
        ("?", 5, {False}),
    ):
        scorer = LmEvalAdapter(engine(micro.model, micro.tokenizer, 4))
        asked = {"until": [until], "max_gen_toks": cap, "do_sample": False}
        given = scorer.generate_until(requests(texts, **asked))
        assert given == stock.generate_until(requests(texts, **asked))
        longer = stock.generate_until(requests(texts, **{**asked, "max_gen_toks": cap + 12}))
        # what stopped by itself does not go on when it may, what was cut off does
        assert [response == more for response, more in zip(given, longer, strict=True)] == [
            scorer.stopped(text) for text in texts
        ]
        assert {scorer.stopped(text) for text in texts} == expected


@pytest.mark.parametrize("engine", [HFEngine, FastEngine])
def test_any_of_a_models_end_tokens_ends_a_response(micro, monkeypatch, engine):
    """Llama 3 has three; the tokenizer knows one of them."""
    text = "Question: Tom has 7 apples and buys 5 more. How many apples does Tom have?\nAnswer:"
    (response,) = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer).generate_until(
        requests([text], until=[], max_gen_toks=9)
    )
    first = micro.tokenizer.encode(response, add_special_tokens=False)[0]
    monkeypatch.setattr(micro.model.generation_config, "eos_token_id", [micro.tokenizer.eos_token_id, first])
    scorer = LmEvalAdapter(engine(micro.model, micro.tokenizer, 1))
    assert len(scorer.generate_until(requests([text], until=[], max_gen_toks=9))[0]) < len(response)
    assert scorer.stopped(text)


# ---------------------------------------------------------------------- bits of the gold solution


def pairs() -> list[tuple[str, str]]:
    rows = [("Question: Tom has 12 apples.\nAnswer:", " 12 - 5 = 7\n#### 7"), ("A: ", "Tom é🙂 buys 3"), ("B:", " 1")]
    return [*rows, (f"{rows[0][0]} 12\n\n{rows[0][0]}", rows[0][1])]


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_bits_of_the_tokens_are_lm_evals_log_likelihood_of_the_whole(micro, batch_size):
    found = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, batch_size)).continuation_bits(pairs())
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    asked = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs())]
    for tokens, (nats, _) in zip(found, stock.loglikelihood(asked), strict=True):
        assert sum(token.bits for token in tokens) == pytest.approx(-nats / math.log(2), rel=1e-4, abs=1e-5)


def test_a_model_whose_head_cannot_leave_positions_out_gives_the_same_bits(micro, monkeypatch):
    wanted = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, 3)).continuation_bits(pairs())
    forward = micro.model.forward
    assert "logits_to_keep" in inspect.signature(forward).parameters
    monkeypatch.setattr(micro.model, "forward", lambda input_ids: forward(input_ids))
    found = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, 3)).continuation_bits(pairs())
    for one, other in zip(wanted, found, strict=True):
        assert [token.bits for token in one] == pytest.approx([token.bits for token in other], rel=1e-4, abs=1e-5)


def test_every_character_of_the_gold_solution_belongs_to_one_token(micro):
    for (_, gold), tokens in zip(
        pairs(), LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, 3)).continuation_bits(pairs()), strict=True
    ):
        assert "".join(gold[token.begin : token.end] for token in tokens) == gold


def test_what_is_too_long_for_the_model_is_cut_from_the_left(micro):
    scorer = LmEvalAdapter(HFEngine(micro.model, micro.tokenizer, 2))
    long = ("Tom has 12 apples. " * scorer.engine.max_length + "Answer:", " 12 - 5 = 7")
    stock = HFLM(pretrained=micro.model, tokenizer=micro.tokenizer, batch_size=1)
    ((nats, _),) = stock.loglikelihood([Instance("loglikelihood", {}, long, 0)])
    (tokens,) = scorer.continuation_bits([long])
    assert sum(token.bits for token in tokens) == pytest.approx(-nats / math.log(2), rel=1e-4)


GOLD = " Tom's 48/2 = <<48/2=24>>24 clips, twenty-five x 3, 1,200 x 3 (or so).\n#### 1,224 end"


def test_the_classes_of_a_gold_solution():
    found = decomposition.classes(GOLD, "Tom sold 48 clips, and 2 more", "####")
    runs = {kind: "".join(c if k == kind else " " for c, k in zip(GOLD, found, strict=True)).split() for kind in set(found)}
    words = runs.pop("word")
    assert words == ["Tom's", "clips,", "twenty-five", "x", ",", "or", "so", ".", "end"]
    assert runs == {
        "digit_copied": ["48", "2"],
        "digit_computed": ["24", "3", "1,200", "3"],
        "operator": ["/", "=", "x", "(", ")"],
        "calculator": ["<<48/2=24>>"],
        "marker": ["####"],
        "final": ["1,224"],
    }
    assert set(runs) == {*decomposition.PARTS, "operator"}
    assert {"marker", "final"}.isdisjoint(decomposition.classes(GOLD, "", None)), "without a marker nothing is final"


def test_the_classes_add_up_to_the_whole_in_bits_and_in_bytes(documents):
    frame = documents["micro_gsm"]
    for unit in ("bits", "bytes"):
        assert np.allclose(sum(frame[f"{unit}.{name}"] for name in decomposition.CLASSES), frame[unit])
        for whole in ("digit", "format"):
            parts = [f"{unit}.{part}" for part, of in decomposition.PARTS.items() if of == whole]
            assert np.allclose(frame[parts].sum(axis=1), frame[f"{unit}.{whole}"])
    assert (frame["bytes"] == [len(f" {target}".encode()) for target in frame["target"]]).all()
    assert (frame["bytes.marker"] > 0).all()


def test_a_response_without_the_marker_and_one_that_is_lax_are_told_apart(micro, tasks, monkeypatch):
    answers = iter(["12 - 5 = 7\n#### 7", "it makes 7", "#### 9 and 7", "nothing"])
    monkeypatch.setattr(LmEvalAdapter, "generate_until", lambda self, asked, **_: [next(answers) for _ in asked])
    monkeypatch.setattr(LmEvalAdapter, "stopped", lambda self, prompt: False)
    tasks_of = tasks.build(Evaluation.model_validate({"preset": "micro_gsm", "documents": 4}))["micro_gsm"]
    monkeypatch.setattr(type(tasks_of), "doc_to_target", lambda self, doc, *_: "2 + 5 = 7\n#### 7")
    evaluation = Evaluation.model_validate({"preset": "micro_gsm", "documents": 4})
    frame = evaluate.evaluate(FastEngine(micro.model, micro.tokenizer, 4), "math", evaluation, tasks)
    assert frame[["marker", "strict", "flexible", "stopped"]].to_numpy().tolist() == [
        [1, 1, 1, 0],
        [0, 0, 1, 0],
        [1, 0, 1, 0],
        [0, 0, 0, 0],
    ]


def test_the_margin_of_a_choice_is_above_zero_where_it_is_right(documents):
    frame = documents["micro_swag"]
    assert ((frame["margin"] > 0) == (frame["acc_norm,none"] == 1)).all()
    assert 0 < frame["acc_norm,none"].mean() < 1
    chosen = [float(row.response.split()[int(row.target)]) for row in frame.itertuples()]
    assert (-frame["bits"] * math.log(2)).tolist() == pytest.approx(chosen, abs=1e-4)


# ---------------------------------------------------------------------- summed up


def test_a_ratio_of_sums_has_the_standard_error_of_its_jackknife():
    random = np.random.default_rng(0)
    bottoms = pd.Series(random.integers(20, 200, 400).astype(float))
    tops = bottoms * 0.8 + random.normal(0, 9, 400)
    found = aggregate.ratio(tops, bottoms)
    without = (tops.sum() - tops) / (bottoms.sum() - bottoms)
    jackknife = math.sqrt(399 / 400 * ((without - without.mean()) ** 2).sum())
    assert found.value == tops.sum() / bottoms.sum()
    assert found.stderr == pytest.approx(jackknife, rel=0.02)


def test_what_is_measured_beside_the_metrics_has_its_scores(documents):
    _, generated = aggregate.scores(documents["micro_gsm"])
    assert {"strict", "flexible", "marker", "stopped", "bpb", "bpb.word", "bpb.digit", "bpb.operator", "bpb.format"} <= set(
        generated
    )
    assert "bpb.calculator" not in generated, "micro's solutions have no calculator"
    frame = documents["micro_gsm"]
    assert generated["bpb.digit"].value == frame["bits.digit"].sum() / frame["bytes.digit"].sum()
    _, chosen = aggregate.scores(documents["micro_swag"])
    assert {"acc,none", "acc_norm,none", "margin", "bpb"} == set(chosen)
