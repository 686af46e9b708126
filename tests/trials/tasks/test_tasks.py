"""lm-eval's tasks: built once, checked against a role's settings."""

import pytest
from lm_eval.tasks import TaskManager

from tests.factories.own_tasks import CHOICES, DISTANCE, NOTES, SUMS, role, shop
from trials.errors import InputError
from trials.evaluation_section import FOLDER
from trials.hub.hub import Hub
from trials.spec import Evaluation
from trials.tasks.tasks import Tasks, check, check_room, measured, same_split, stock_manager


@pytest.fixture(scope="module")
def tasks() -> Tasks:
    return Tasks(Hub())


def evaluation(**fields) -> Evaluation:
    return Evaluation.model_validate({"task": "micro_gsm", "metric": "exact_match", "filter": "strict-match", **fields})


def test_bundled_task_is_at_hand_with_its_data(tasks):
    assert tasks.at_hand(evaluation())
    assert tasks.datasets("micro_gsm") == {"micro/gsm8k"}


def test_stock_task_whose_folder_begins_its_name_needs_no_index_of_all_tasks(monkeypatch):
    monkeypatch.setattr("trials.tasks.tasks._stock_tasks", lambda: pytest.fail("ten seconds"))
    for name in ("gsm8k", "hellaswag", "mmlu_college_computer_science"):
        assert stock_manager(name).task_index[name].name == name


@pytest.mark.slow
def test_stock_tasks_are_those_of_the_index_of_all():
    whole = TaskManager()
    found = {name: stock_manager(name).task_index[name] for name in whole.task_index}
    assert found == whole.task_index


def test_task_is_built_once(tasks):
    (one,), (other,) = (tasks.build(evaluation()).values() for _ in range(2))
    assert one is other
    assert "exact_match,strict-match" in measured(one)


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        ({"metric": "acc"}, "eval.math: task micro_gsm measures exact_match,strict-match"),
        ({"documents": 9_999}, "eval.math.documents: 9999 requested, micro_gsm has"),
        ({"shots": 100_000}, "eval.math.shots: 100000 requested, task micro_gsm has"),
    ],
)
def test_setting_that_a_task_cannot_have_is_one_line(tasks, fields, refusal):
    with pytest.raises(InputError) as caught:
        check("math", evaluation(**fields), tasks)
    assert refusal in str(caught.value)


def test_response_that_fills_the_model_leaves_no_room(tasks):
    check_room("math", evaluation(), tasks, longest=1024)
    with pytest.raises(InputError, match="but the base takes 16, the prompt included"):
        check_room("math", evaluation(), tasks, longest=16)


def test_training_split_that_is_evaluated_is_found(tasks):
    assert same_split(evaluation(), "micro/gsm8k", "main", "test", tasks) == "micro_gsm"
    assert same_split(evaluation(), "micro/gsm8k", None, "train+test[:10]", tasks) == "micro_gsm"
    assert same_split(evaluation(), "micro/gsm8k", "main", "train", tasks) is None


def test_documents_of_a_sample_are_those_of_lm_eval(tasks):
    (task,) = tasks.build(evaluation()).values()
    sampled = [doc for _, doc in task.doc_iterator(samples=[7, 3])]
    assert sampled == [task.eval_docs[3], task.eval_docs[7]]


# ---------------------------------------------------------------------- own tasks


def test_folder_has_its_tasks_from_any_working_folder(tasks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = role(CHOICES)
    assert {name: len(task.eval_docs) for name, task in tasks.build(own).items()} == {"shop_tools": 30, "shop_visits": 30}
    assert tasks.at_hand(own)
    assert tasks.build(own)["shop_tools"] is tasks.build(own)["shop_tools"]


def test_name_in_the_folder_goes_before_the_same_name_elsewhere(tasks, tmp_path):
    folder = shop(tmp_path)
    (folder / "sums.yaml").write_text((folder / "sums.yaml").read_text().replace("shop_sums", "micro_gsm"))
    (task,) = tasks.build(role({**SUMS, "task": "micro_gsm"}, folder)).values()
    assert len(task.eval_docs) == 40


def test_group_of_a_folder_may_have_a_bundled_task(tasks, tmp_path):
    folder = shop(tmp_path)
    (folder / "all.yaml").write_text("group: all\ntask: [shop_visits, {task: micro_cs, num_fewshot: 1}]\n")
    built = tasks.build(role({**CHOICES, "task": "all"}, folder))
    assert list(built) == ["shop_visits", "micro_cs"]
    assert built["micro_cs"].config.num_fewshot == 1


def test_edited_data_are_read_again(tasks, tmp_path):
    folder = shop(tmp_path)
    before = tasks.build(role(SUMS, folder))["shop_sums"]
    data = folder / "data" / "sums.jsonl"
    data.write_text(data.read_text().splitlines()[0])
    assert len(before.eval_docs) == 40
    assert len(tasks.build(role(SUMS, folder))["shop_sums"].eval_docs) == 1


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {**NOTES, "metric": "perplexity"},
            "task shop_notes measures word_perplexity,none; bits_per_byte,none; not perplexity",
        ),
        ({**NOTES, "marker": "####"}, "marker and flexible are of a metric of right answers"),
        ({**DISTANCE, "trust_code": False}, "distance.yaml:5: !function metrics.distance"),
    ],
)
def test_role_that_an_own_task_cannot_have_is_one_line(tasks, fields, expected):
    with pytest.raises(InputError) as caught:
        check("own", role(fields), tasks)
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("doc_to_txt: a", "one.yaml:3: task one: lm-eval knows no key 'doc_to_txt'; did you mean 'doc_to_text'?"),
        (
            "doc_to_text: '{{nothing}}'\ndoc_to_target: a",
            "one.yaml:3: doc_to_text: 'nothing' is undefined; the columns are problem",
        ),
        ("process_docs: !function code.docs", "code.py:2: task one cannot be built: ZeroDivisionError: division by zero"),
    ],
)
def test_task_that_cannot_be_built_is_one_line_with_its_place(tasks, tmp_path, text, expected):
    folder = shop(tmp_path)
    (folder / "code.py").write_text("def docs(rows):\n    return 1 / 0\n")
    data = "dataset_path: json\ndataset_kwargs: {data_files: data/sums.jsonl}\ntest_split: train"
    (folder / "one.yaml").write_text(f"task: one\noutput_type: generate_until\n{text}\n{data}\n")
    with pytest.raises(InputError) as caught:
        tasks.build(role({"task": "one", "metric": "exact_match", "trust_code": True}, folder))
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_data_set_of_the_hub_that_is_not_at_hand_is_one_line_with_its_place(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = shop(tmp_path)
    (folder / "far.yaml").write_text("task: far\ndataset_path: nobody/nothing\ntest_split: test\n")
    with pytest.raises(InputError, match=r"far.yaml:2: data set of task 'far', 'nobody/nothing' is neither a folder") as caught:
        tasks.build(role({"task": "far", "metric": "acc"}, folder))
    assert len(str(caught.value).splitlines()) == 1


def test_pinned_role_keeps_its_tasks_while_their_folder_is_edited(tasks, tmp_path):
    folder = shop(tmp_path)
    pinned = role(SUMS, folder).model_copy(update={"content": {FOLDER: "sha256:1"}})
    before = tasks.build(pinned)
    (folder / "sums.yaml").write_text("no: [yaml")
    assert tasks.build(pinned) == before


def test_task_that_runs_responses_is_refused_before_its_code_is_imported(tasks, tmp_path):
    folder = shop(tmp_path)
    (folder / "code.py").write_text("raise SystemExit('imported')\n")
    data = "dataset_path: json\ndataset_kwargs: {data_files: data/sums.jsonl}\ntest_split: train"
    (folder / "one.yaml").write_text(f"task: one\nunsafe_code: true\nprocess_docs: !function code.docs\n{data}\n")
    with pytest.raises(InputError, match=r"task one runs the code that a model generates \(unsafe_code\)") as caught:
        check("code", role({"task": "one", "metric": "acc", "trust_code": True}, folder), tasks)
    assert len(str(caught.value).splitlines()) == 1


def test_output_types_are_read_without_building_a_task(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(Tasks, "build", lambda *_: pytest.fail("a task is built"))
    folder = shop(tmp_path)
    data = "dataset_path: json\ndataset_kwargs: {data_files: data/sums.jsonl}\ntest_split: train\n"
    (folder / "one.yaml").write_text(f"task: one\n{data}")
    (folder / "two.yaml").write_text("task: two\nclass: !function code.Two\n")
    assert tasks.output_types(role(CHOICES, folder)) == ["multiple_choice"]
    assert tasks.output_types(role({"task": ["one", "shop_notes"], "metric": "m"}, folder)) == [
        "generate_until",  # lm-eval's default
        "loglikelihood_rolling",
    ]
    assert tasks.output_types(role({"task": ["one", "two"], "metric": "m", "trust_code": True}, folder)) is None
    assert tasks.output_types(Evaluation(task="lambada_openai", metric="acc")) == ["loglikelihood"]
