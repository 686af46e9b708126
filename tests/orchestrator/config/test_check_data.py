"""A source that is not defined is found when the config is read."""

import pytest

from orchestrator.config.load import load
from trials.errors import InputError
from trials.yaml_file import YamlFile

CONFIG = """name: x
base: {model: micro}
data:
  samples: 4
  sources: {mine: {dataset: chats.jsonl}}
  mix: {mine: 0.5, %s: 0.5}
  replay: {source: %s, share: 0.1}
lora: {rank: 8}
train: {learning_rate: 1.0e-4, epochs: 1, batch_size: 4}
eval: {math: {preset: gsm8k}}
space: {lora.rank: [4, 8]}
search: {trials: 2, objectives: [math.gain]}
"""


@pytest.mark.parametrize(
    ("mixed", "replayed", "line"),
    [
        ("chat", "gsm8k", "file.yaml:6:21: data.mix: no source 'chat'; did you mean 'mine'? known: "),
        ("alpacca", "gsm8k", "file.yaml:6:24: data.mix: no source 'alpacca'; did you mean 'alpaca'? known: "),
        ("alpaca", "zzz", "file.yaml:7:20: data.replay: no source 'zzz'; did you mean 'mine'? known: "),
    ],
)
def test_unknown_source_is_one_line_with_its_place(tmp_path, mixed, replayed, line):
    with pytest.raises(InputError) as caught:
        load(YamlFile(tmp_path / "file.yaml", text=CONFIG % (mixed, replayed)))
    (said,) = str(caught.value).splitlines()
    assert said.startswith(f"{tmp_path}/{line.partition(': data')[0].rpartition(':')[0]}:")
    assert line.partition(": ")[2] in said
