"""Which templates this process renders itself, and what is said of those that cannot be rendered."""

import lm_eval.api.task
import lm_eval.utils
import pytest

from trials.errors import InputError
from trials.tasks import bounded_templates, templates

ROW = {"question": "How many?"}


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(templates, "_trusted", set())
    monkeypatch.setattr(templates, "_places", {})
    templates.install()


def render(template):
    return lm_eval.utils.apply_template(template, ROW)


def test_templates_are_rendered_in_this_process_only_where_they_are_trusted(monkeypatch):
    monkeypatch.setattr(bounded_templates, "render", lambda template, row: "elsewhere")
    assert render("{{ question }} 1") == "elsewhere"
    assert render("no template") == "no template"
    templates.trust({"task": "any", "fewshot_config": {"samples": [{"a": 1}], "doc_to_text": ["{{ question }} 1"]}})
    assert render("{{ question }} 1") == "How many? 1"


def test_error_of_a_strangers_template_is_one_line_with_its_place():
    with pytest.raises(InputError, match=r"^a template of a task folder: 'queston' is undefined; did you mean 'question'\?"):
        render("{{ queston }}")
    templates.explain({"{{ queston }}": "t.yaml:7: doc_to_text"})
    with pytest.raises(InputError, match=r"^t.yaml:7: doc_to_text: 'queston' is undefined; did you mean 'question'\?"):
        render("{{ queston }}")
    with pytest.raises(InputError, match=r"^a template of a task folder: TemplatesNotFound: none of .*: \\x1b\[31m x") as told:
        render("{% include ['\x1b[31m\n" + "x" * 9000 + "'] %}")
    assert len(str(told.value)) < 1_100


def test_error_of_lm_evals_own_template_stays_what_it_is():
    templates.trust("{{ question.nothing() }}")
    with pytest.raises(templates.Unrenderable, match="has no attribute 'nothing'"):
        render("{{ question.nothing() }}")


def test_text_of_a_strangers_template_is_no_literal_beyond_the_bounds():
    literal = lm_eval.api.task.ast.literal_eval
    assert literal(render("{{ [question, 1] }}")) == ["How many?", 1]
    templates.explain({(template := "{{ '[f\"' ~ '{1}' * 300000 ~ '\"]' }}"): "t.yaml:8: doc_to_choice"})
    with pytest.raises(
        InputError, match=r"t.yaml:8: doc_to_choice: wrote .*, which is no list or number: a template may"
    ) as told:
        literal(render(template))
    assert not isinstance(told.value, ValueError)  # which lm-eval catches
    with pytest.raises(ValueError, match="is no list or number: SyntaxError"):
        literal(render("[{{ question }}"))
    with pytest.raises(SyntaxError):
        literal("[1")
