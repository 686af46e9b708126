"""A folder of own tasks that cannot be used is refused at its line of the config."""

import pytest

from orchestrator.config.load import load
from tests.factories.configs import problem
from tests.factories.own_tasks import DISTANCE, SUMS, shop


@pytest.fixture
def own(parts, write, tmp_path):
    def make(**fields):
        parts["eval"]["sums"] = {**SUMS, "include": "shop", **fields}
        return write(parts)

    shop(tmp_path)
    return make


@pytest.mark.parametrize(
    ("fields", "at", "expected"),
    [
        ({"include": "nowhere"}, "include: nowhere", "eval.sums.include: "),
        ({"task": "shop_sum"}, "task: shop_sum", "did you mean 'shop_sums'"),
        (
            {"metric": "exact_mach"},
            "metric: exact_mach",
            "has no metric 'exact_mach'; did you mean 'exact_match'? it measures exact",
        ),
        ({**DISTANCE, "trust_code": False}, "include: shop", "distance.yaml:5: !function metrics.distance: task shop_distance"),
    ],
)
def test_bad_folder_is_one_line_with_its_place(own, fields, at, expected):
    path = own(**fields)
    message = problem(path)
    assert expected in message
    assert len(message.splitlines()) == 1
    _, line, column, _ = message.split(":", 3)
    assert path.read_text().splitlines()[int(line) - 1][int(column) - 1 :].startswith(at)


def test_folder_is_found_beside_the_config_from_any_working_folder(own, tmp_path, monkeypatch):
    path = own()
    monkeypatch.chdir("/")
    assert load(path).eval["sums"].include == str(tmp_path / "shop")


def test_trust_without_a_folder_is_refused(parts, write):
    parts["eval"]["math"]["trust_code"] = True
    assert "trust_code is for the code of a task folder" in problem(write(parts))


def test_folder_is_no_setting_to_search(own, parts, write):
    own()
    parts["space"]["eval.sums.include"] = {"type": "categorical", "choices": ["a", "b"]}
    assert "give each folder a role of its own" in problem(write(parts))


@pytest.mark.parametrize(
    ("fields", "refused"), [({}, True), ({"until": "."}, False), ({"choices": ["{{answer}}", "no"]}, False)]
)
def test_chat_template_of_questions_is_searched_only_with_an_end_for_both(parts, write, tmp_path, fields, refused):
    (tmp_path / "faq.jsonl").write_text('{"question": "Open?", "answer": "yes"}\n')
    parts["eval"]["faq"] = {"questions": "faq.jsonl", **fields}
    parts["space"]["eval.faq.chat_template"] = {"type": "categorical", "choices": [True, False]}
    path = write(parts)
    if refused:
        message = problem(path)
        assert "space: eval.faq.chat_template: what ends a response by default" in message
        assert len(message.splitlines()) == 1
    else:
        load(path)
