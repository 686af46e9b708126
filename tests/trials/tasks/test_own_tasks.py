"""What is wrong with a role's own tasks is known before anything of their folder runs."""

import pytest

from tests.factories.own_tasks import CHOICES, DISTANCE, SHOP, SUMS, role, shop
from trials.errors import InputError
from trials.hub.hub import Hub
from trials.spec import Evaluation
from trials.tasks.folder import Entry, leaves, opened
from trials.tasks.own_tasks import check, check_keys, datasets, explained, problems, template_places
from trials.tasks.tasks import Tasks


def test_sound_role_has_no_problem():
    for fields in (SUMS, CHOICES, DISTANCE):
        assert list(problems(role(fields))) == []
    assert list(problems(Evaluation(task="micro_gsm", metric="exact_match"))) == []


def test_code_without_trust_is_refused_with_its_line():
    with pytest.raises(InputError) as caught:
        check(role({**DISTANCE, "trust_code": False}))
    assert str(caught.value).startswith(f"{SHOP}/distance.yaml:5: !function metrics.distance: task shop_distance would run")


def test_every_kind_of_problem_names_its_key(tmp_path):
    assert [key for key, _ in problems(role(SUMS, tmp_path / "no"))] == ["include"]
    assert [key for key, _ in problems(role({**SUMS, "task": "shop_sum"}))] == ["task"]
    folder = shop(tmp_path)
    (folder / "data" / "sums.jsonl").unlink()
    assert [key for key, _ in problems(role(SUMS, folder))] == ["include"]


def test_unknown_key_of_a_task_is_refused_with_the_nearest():
    folder = opened(str(SHOP))
    (leaf,) = folder.leaves("shop_sums")
    with pytest.raises(InputError, match="lm-eval knows no key 'doc_to_txt'; did you mean 'doc_to_text'"):
        check_keys(folder, leaf, {"doc_to_txt": "x"}, {"doc_to_text", "task"})


def test_error_of_a_folders_task_is_one_line_and_others_pass():
    folder = opened(str(SHOP))
    (leaf,) = folder.leaves("shop_sums")
    with pytest.raises(InputError, match=r"sums.yaml: task shop_sums cannot be built: KeyError: 'x'"), explained(folder, leaf):
        raise KeyError("x")
    with pytest.raises(KeyError), explained(None, leaf):
        raise KeyError("x")
    with pytest.raises(OSError, match="gone"), explained(folder, leaf, but=(OSError,)):
        raise OSError("gone")


def test_data_sets_of_the_hub_and_foreign_members_are_told_apart(tmp_path):
    folder = shop(tmp_path)
    (folder / "hub.yaml").write_text("task: hub\ndataset_path: org/rows\n")
    (folder / "all.yaml").write_text("group: all\ntask: [hub, shop_sums, hellaswag]\n")
    assert datasets(str(folder), "all") == (["org/rows"], ["hellaswag"])


def test_prompt_of_a_file_is_refused(tmp_path):
    folder = shop(tmp_path)
    with (folder / "sums.yaml").open("a") as file:
        file.write("use_prompt: '/far/p.yaml:one'\n")
    ((key, text),) = problems(role(SUMS, folder))
    assert key == "include"
    assert "sums.yaml:14: use_prompt /far/p.yaml:one: a file of prompts is not pinned" in text


def test_misspelt_metric_is_a_problem_of_the_role_with_the_nearest():
    ((key, text),) = problems(role({**DISTANCE, "metric": "distanse"}))
    assert (key, text) == (
        "metric",
        "task shop_distance has no metric 'distanse'; did you mean 'distance'? it measures distance, close",
    )


def with_target(folder, template):
    file = shop(folder) / "_sums.yaml"
    file.write_text(file.read_text().replace("{{solution}}", template))
    return role(SUMS, file.parent)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{solutions}}", r"'solutions' is undefined; did you mean 'solution'\? the columns are problem, solution"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "a template may compute 2 s for a row",
        ),
    ],
)
def test_template_that_cannot_be_rendered_is_named_with_its_line_before_anything_starts(tmp_path, template, reason):
    with pytest.raises(InputError, match=f"_sums.yaml:11: doc_to_target: {reason}"):
        Tasks(Hub()).build(with_target(tmp_path, template))


def test_row_that_a_template_cannot_render_is_an_error_of_one_line_with_the_templates_place(tmp_path):
    (task,) = Tasks(Hub()).build(with_target(tmp_path, "{% if solution == 'x' %}{{ problem * 10**12 }}{% endif %}")).values()
    with pytest.raises(
        InputError, match=r"_sums.yaml:11: doc_to_target: a template may fill 1 GiB of memory, and it needs more$"
    ):
        task.doc_to_target({"problem": "long", "solution": "x"})


def test_places_of_templates_name_every_key_and_what_a_group_overrides(tmp_path):
    folder = shop(tmp_path)
    text = (
        "doc_to_text: '{{ a }}'\ndoc_to_target: '{{ a }}'\nfewshot_config: {doc_to_text: '{{ b }}', samples: [{x: '{{ c }}'}]}"
    )
    (folder / "one.yaml").write_text(f"task: one\n{text}\n")
    (folder / "arc.yaml").write_text("group: arc\ntask: [{task: arc_easy, description: '{{ d }}'}]\n")
    found = opened(str(folder))
    (leaf,) = found.leaves("one")
    places = template_places(found, leaf)
    file = folder / "one.yaml"
    assert places["{{ a }}"] == f"{file}:2: doc_to_text and {file}:3: doc_to_target"
    assert places["{{ b }}"] == f"{file}:4: fewshot_config.doc_to_text"
    assert places["{{ c }}"] == f"{file}:4: fewshot_config.samples.x"
    (leaf,) = leaves("arc", lambda name: found.find(name) or Entry(name, "task", config={"doc_to_text": "{{ e }}"}))
    assert template_places(found, leaf) == {"{{ d }}": f"{folder}: description"}
