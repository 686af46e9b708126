"""A problem that reading the inputs shows names the line of the config that it is about."""

import pytest

from orchestrator.config.late_errors import placed
from trials.errors import InputError

TEXT = """name: mine
hub_mirror: mirror
base: {model: org/none}
data:
  sources:
    chats: {dataset: rows.jsonl}
  samples: 9
  mix: {chats: 0.5, alpaca: 0.5}
eval:
  support: {task: support, metric: acc}
search:
  constraints: [support.drop <= 0.1,
    support.gold_bpb <= 1]
"""


@pytest.mark.parametrize(
    ("problem", "place"),
    [
        ("hub_mirror: mirror is not a folder", "2:1: "),
        ("base.model 'org/none' is neither a folder, nor in the mirror", "3:8: "),
        ("node 127.0.0.1: base.model 'org/none' is neither a folder", "3:8: "),
        ("the tokenizer of base.model 'org/none' is neither a folder", "3:8: "),
        ("data set of source 'chats', rows.jsonl is neither a folder", "6:5: "),
        ("source 'alpaca': it has no rows", "8:21: "),
        ("data.samples: 9 with a share of 0.5 needs 5 rows", "7:3: "),
        ("eval.support: task support measures acc,none", "10:3: "),
        ("search.constraints.1: support.gold_bpb is never defined", "13:5: "),
        ("eval.support.documents: 90 requested, support has 40", "10:3: "),
    ],
)
def test_line_that_is_meant_comes_first(tmp_path, problem, place):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    with pytest.raises(InputError) as caught, placed(path):
        raise InputError(problem)
    assert str(caught.value) == f"{path}:{place}{problem}"


def test_override_is_named_and_other_places_stay(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    with pytest.raises(InputError) as caught, placed(path, ["data.samples=400"]):
        raise InputError(f"data.samples: too many\n{path}:3:8: base.model: unknown\nGPU: none")
    assert str(caught.value).splitlines() == [
        "--set data.samples=400: data.samples: too many",
        f"{path}:3:8: base.model: unknown",
        "GPU: none",
    ]
