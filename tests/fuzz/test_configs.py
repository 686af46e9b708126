"""Configs as people write them: each is accepted, or refused in one line that names its place, at once and in plain words."""

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import cli
from orchestrator.planning import plan
from tests.fuzz import cases

ROOT = Path(__file__).parents[2]
QUICKSTART = (ROOT / "configs" / "quickstart.yaml").read_text()
NAMELESS = QUICKSTART.partition("name: quickstart")[2]
RAW = "RAWRAW"  # stands for text that is put into the YAML as it is
FOREIGN = ("input should", "pydantic", "Traceback", "Error", "literal[", "constrained", "function-")


@dataclass(frozen=True)
class Case:
    """What stands in the file, what --set adds, and a part of the refusal; None where the config is accepted."""

    content: str | bytes
    refusal: str | None
    overrides: tuple[str, ...] = ()


class Loaded(Exception):
    """The config was accepted."""


@pytest.fixture
def refusal(tmp_path, monkeypatch, capfd):
    """What `slimsweep plan` prints to standard error about a case; None where it accepts the config."""

    def accepted(config: Any, *_: Any, **__: Any) -> None:
        raise Loaded

    monkeypatch.setattr(plan, "plan", accepted)

    def run(case: Case) -> str | None:
        path = tmp_path / "c.yaml"
        path.write_bytes(case.content if isinstance(case.content, bytes) else case.content.encode())
        settings = [word for override in case.overrides for word in ("--set", override)]
        monkeypatch.setattr(sys, "argv", ["slimsweep", "plan", str(path), *settings])
        monkeypatch.chdir(ROOT)
        capfd.readouterr()
        try:
            cli.main()
        except Loaded:
            return None
        except SystemExit as ended:
            assert ended.code == 2
        return capfd.readouterr().err.replace(str(tmp_path), "")

    return run


def changed(path: str, value: Any, text: str = QUICKSTART) -> str:
    """The config with one setting changed; a text that begins with RAW is written without quotes."""
    raw = isinstance(value, str) and value.startswith(RAW)
    config = yaml.safe_load(text)
    *parents, last = path.split("/")
    inner = config
    for parent in parents:
        inner = inner[parent]
    inner[last] = RAW if raw else value
    dumped = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    return dumped.replace(RAW, value.removeprefix(RAW)) if raw else dumped


def raw(text: str) -> str:
    return RAW + text


# ---------------------------------------------------------------------- families

WHOLE = {
    "data/samples": 0,
    "data/max_length": 16,
    "data/seed": 0,
    "lora/rank": 1,
    "train/epochs": 1,
    "train/seed": 0,
    "eval/math/shots": 0,
    "eval/math/documents": 1,
    "eval/math/seed": 0,
    "eval/math/batch_size": 1,
    "search/seed": 0,
    "search/trials": 1,
    "search/replicates": 1,
    "resources/cpus_per_trial": 1,
    "resources/max_concurrent": 1,
}
"""Settings that are whole numbers, with the least of each."""
NUMBERS = (
    "lora/alpha",
    "lora/dropout",
    "train/learning_rate",
    "train/warmup",
    "train/kl",
    "train/max_grad_norm",
    "data/max_overlap",
)
TRUTHS = ("lora/use_dora", "lora/use_rslora", "base/double_quantization", "search/racing")
CHOICES = ("base/quantization", "base/dtype", "data/template", "data/loss_on", "train/schedule", "lora/init", "search/sampler")
TEXTS = ("base/revision", "storage")
NO_NUMBER = (
    "yes",
    "no",
    "on",
    "off",
    "1:30",
    "0b11",
    "eight",
    "1,000",
    "2024-01-01",
    "[]",
    "{}",
    "true",
    "False",
    ".nan",
    ".inf",
    "8 GB",
)


def number_cases() -> Iterator[tuple[str, Case]]:
    for path, least in WHOLE.items():
        for value in (*NO_NUMBER, "1.5", "1e-4", str(least - 1), "-1000", "1" + "0" * 12, "1" + "0" * 400):
            yield (
                f"{path}={value[:20]}",
                Case(changed(path, raw(value)), path.rpartition("/")[2] if len(value) < 300 else "digits"),
            )
    for path in NUMBERS:
        for value in (*NO_NUMBER, "-1"):
            yield f"{path}={value}", Case(changed(path, raw(value)), path.rpartition("/")[2])
    for value in ("1e-4", "1.e-4", "1E-4", ".0001", "1_0e-5", "0.000_1", "'1e-4'", "1", "00001e-4"):
        yield f"rate={value}", Case(changed("train/learning_rate", raw(value)), None)
    for value in ("010", "0o10", "0x10", "+8", "1_6", "8.0", "1e1", "'8'", "008"):
        yield f"rank={value}", Case(changed("lora/rank", raw(value)), None)


def word_cases() -> Iterator[tuple[str, Case]]:
    for path in TRUTHS[:3]:
        for value in ("yes", "no", "on", "off", "true", "False", "TRUE"):
            yield f"{path}={value}", Case(changed(path, raw(value)), None)
    for path in TRUTHS:
        for value in ("maybe", "2", "0.5", "[]", "{a: 1}", "~"):
            yield f"{path}={value}", Case(changed(path, raw(value)), "expected true or false")
    for path in CHOICES:
        for value in ("nothing", "yes", "1", "true", "[]", "~", "1:30"):
            yield f"{path}={value}", Case(changed(path, raw(value)), path.rpartition("/")[2])
    for path in TEXTS:
        for value in ("1", "1.5", "true", "010", "1e5", "[a]", "{a: b}"):
            yield f"{path}={value}", Case(changed(path, raw(value)), "expected a text")
        for value in ("on", "1:30", "2024-01-01", "'1'", "v1.0", "0b1"):
            yield f"{path}={value} ", Case(changed(path, raw(value)), None)
    for name in (
        "ledger",
        "Ledger",
        ".hidden",
        "a/b",
        "../x",
        "",
        "a b",
        "-a",
        "x" * 201,
        "ü",
        "a\tb",
        "a\nb",
        "con\x01",
        "~",
        "$HOME",
    ):
        yield (
            f"name={name[:8]!r}",
            Case(changed("name", name) if "\x01" not in name else f'name: "con\\x01"\n{NAMELESS}', "name"),
        )
    for name in ("a", "A.b-c_1", "x" * 200, "0", "ledgers"):
        yield f"name={name[:8]}", Case(changed("name", name), None)


SECTIONS = {
    "base": "quantisation",
    "data": "sampels",
    "lora": "rnak",
    "train": "learing_rate",
    "eval/math": "document",
    "search": "trails",
    "resources": "gpu_per_trial",
}
ELSEWHERE = {
    "trials": "search.trials",
    "sampler": "search.sampler",
    "objectives": "search.objectives",
    "constraints": "search.constraints",
    "rank": "lora.rank",
    "learning_rate": "train.learning_rate",
    "samples": "data.samples",
    "model": "base.model",
    "lora.rank": "write it as lora: {rank: ...}",
    "max_concurrent": "resources.max_concurrent",
    "lr": "train.learning_rate",
    "gpus": "resources.gpus_per_trial",
    "tasks": "did you mean 'eval'?",
    "objective": "search.objectives",
    "minimize": "search.objectives",
    "n_trials": "search.trials",
    "seeds": "search.replicates",
    "max_seq_length": "data.max_length",
    "model_name_or_path": "base.model",
    "hyperparameters": "did you mean 'space'?",
    "output_dir": "did you mean 'storage'?",
    "description": "did you mean 'about'?",
    "LORA": "did you mean 'lora'?",
    "space.lora.rank": "write it as space: {lora.rank: ...}",
}
FOREIGN_KEYS = {"lora/r": "rank", "lora/lora_alpha": "alpha", "train/lr": "learning_rate", "train/num_train_epochs": "epochs"}
FOREIGN_KEYS |= {
    "train/per_device_train_batch_size": "micro_batch_size",
    "search/n_trials": "trials",
    "search/minimize": "objectives",
    "search/algorithm": "sampler",
    "search/seeds": "replicates",
    "search/timeout": "hours",
    "eval/math/tasks": "task",
    "eval/math/n_shots": "shots",
    "base/model_name": "model",
}


def key_cases() -> Iterator[tuple[str, Case]]:
    for section, typo in SECTIONS.items():
        yield f"{section}/{typo}", Case(changed(f"{section}/{typo}", 1), "did you mean")
        for value in (1, "text", [1], None, True):
            yield f"{section}={value}", Case(changed(section, value), section.rpartition("/")[2])
    for key, right in ELSEWHERE.items():
        yield f"top {key}", Case(changed(key, 1), right)
    for key, right in FOREIGN_KEYS.items():
        yield key, Case(changed(key, 1), f"did you mean '{right}'?")
    for path in ("lora/rank", "train/learning_rate", "data/samples", "eval/math/documents", "lora/use_dora"):
        name = path.replace("/", ".")
        yield f"{path} as a list", Case(changed(path, [4, 8]), f"to search it, write space: {{{name}: [4, 8]}}")
        yield f"{path} as a range", Case(changed(path, {"low": 4, "high": 8}), f"to search it, write space: {{{name}: ")
    for path in ("lora.rank", "train.learning_rate", "data.mix.alpaca"):
        yield f"top {path} as a list", Case(changed(path, [4, 8]), f"write it as space: {{{path}: [4, 8]}}")
    for key in ("name", "base", "data", "eval", "space", "search"):
        config = yaml.safe_load(QUICKSTART)
        del config[key]
        yield f"without {key}", Case(yaml.safe_dump(config), f"missing key '{key}'")
    yield "all missing", Case("about: {a: b}\n", "missing keys 'name', 'base', 'data', 'eval', 'space', 'search'")


def bomb(merge: bool) -> str:
    """Ten aliases in each of thirty levels: 10^30 values."""
    inner = "{{<<: [{}]}}" if merge else "[{}]"
    levels = ["a0: &a0 {x: 1}"] + [f"a{i}: &a{i} {inner.format(','.join([f'*a{i - 1}'] * 10))}" for i in range(1, 30)]
    return "\n".join(levels) + "\n"


YAML_REFUSED = {
    "empty": ("", "empty"),
    "comments": ("# nothing\n\n# here\n", "empty"),
    "null": ("~\n", "empty"),
    "marker": ("---\n", "empty"),
    "list": ("- a\n- b\n", "found a list"),
    "text": ("hello\n", "found a text"),
    "number": ("12\n", "expected keys and values"),
    "NUL": (QUICKSTART + "\0", "U+0000"),
    "escaped NUL": (QUICKSTART + 'about: {a: "x\\0"}\n', "U+0000"),
    "half a character": (QUICKSTART + 'about: {a: "\\ud800"}\n', "U+D800"),
    "escape": (QUICKSTART + "# \x1b[31m\n", "U+001B"),
    "latin-1": (QUICKSTART.encode() + b"about: {a: caf\xe9}\n", "0xe9 is not UTF-8"),
    "utf-16": (QUICKSTART.encode("utf-16"), "UTF-16"),
    "utf-16 without mark": (QUICKSTART.encode("utf-16-le"), "U+0000"),
    "utf-32": (QUICKSTART.encode("utf-32"), "UTF-32"),
    "binary": (bytes(range(128, 256)) * 9, "not UTF-8"),
    "too large": ("#" * 2**21, "no config"),
    "alias in itself": ("a: &a [*a]\n" + QUICKSTART, "inside &a"),
    "alias in its mapping": ("a: &a {b: {c: *a}}\n" + QUICKSTART, "inside &a"),
    "merge of itself": ("a: &a {<<: *a}\n" + QUICKSTART, "inside &a"),
    "deep list": ("a: " + "[" * 100_000, "50 levels"),
    "deep mapping": ("{a: " * 100_000, "50 levels"),
    "deep dashes": ("- " * 100_000, "50 levels"),
    "deep questions": ("? " * 100_000, "50 levels"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(450)), "50 levels"),
    "deep strings": ("a: " + "[" * 60 + "x" + "]" * 60, "50 levels"),
    "aliases": (bomb(False) + QUICKSTART, "aliases expanded"),
    "merges": (bomb(True) + QUICKSTART, "aliases expanded"),
    "digits": (QUICKSTART + f"about: {{a: {'9' * 5000}}}\n", "5,000 digits"),
    "no date": (QUICKSTART + "about: {made: 2024-13-45}\n", "is no date"),
    "no day": (QUICKSTART + "about: {made: 2023-02-29}\n", "is no date"),
    "no hour": (QUICKSTART + "about: {made: 2023-02-28 25:00:00}\n", "is no date"),
    "python": (QUICKSTART + "about: !!python/object/apply:os.system ['true']\n", "no meaning here"),
    "tag": (QUICKSTART + "about: {a: !secret x}\n", "no tag"),
    "set": (QUICKSTART + "about: !!set {a, b}\n", "no meaning here"),
    "complex key": (QUICKSTART + "about: {? [a, b] : c}\n", "a key is a text"),
    "tab": (QUICKSTART + "about:\n\ta: 1\n", "not tabs"),
    "two documents": (QUICKSTART + "---\nb: 2\n", "another document"),
    "unclosed": (QUICKSTART + "about: [a\n", "not YAML"),
    "unclosed quote": (QUICKSTART + "about: 'a\n", "not YAML"),
    "two colons": (QUICKSTART + "about: a: b\n", "not YAML"),
    "no anchor": (QUICKSTART + "about: {a: *x}\n", "undefined alias"),
    "twice": (QUICKSTART + "name: again\n", "stands here twice"),
    "merge twice": (QUICKSTART + "about:\n  a: &a {b: 1}\n  c:\n    <<: *a\n    <<: *a\n", "stands here twice"),
    "merge of a number": (QUICKSTART + "about: {<<: 3}\n", "`<<` takes a mapping"),
    "merge of numbers": (QUICKSTART + "about: {<<: [3, 4]}\n", "`<<` takes a mapping"),
    "version": ("%YAML 9.1\n---\n" + QUICKSTART, "not YAML"),
    "backtick": (QUICKSTART + "about: {a: `x`}\n", "not YAML"),
    "percent": (QUICKSTART + "about: %x\n", "not YAML"),
    "at": (QUICKSTART + "about: {a: @x}\n", "not YAML"),
}
LORA = "lora: {rank: 8, alpha: 32, target_modules: [q_proj, k_proj, v_proj]}"
YAML_ACCEPTED = {
    "as it is": QUICKSTART,
    "mark": "\ufeff" + QUICKSTART,
    "windows": QUICKSTART.replace("\n", "\r\n"),
    "marker": "---\n" + QUICKSTART + "...\n",
    "version": "%YAML 1.2\n---\n" + QUICKSTART,
    "comments": QUICKSTART.replace("\n", " # note\n"),
    "unicode": QUICKSTART + "about: {a: Größe 模型 🙂}\n",
    "own key first": QUICKSTART.replace(LORA, "about: {a: &a {rank: 4, alpha: 8}}\nlora: {rank: 8, <<: *a}"),
    "own key last": QUICKSTART.replace(LORA, "about: {a: &a {rank: 4, alpha: 8}}\nlora: {<<: *a, rank: 8}"),
    "two merged": QUICKSTART.replace(LORA, "about: {a: &a {rank: 4}, b: &b {rank: 2, alpha: 8}}\nlora: {<<: [*a, *b]}"),
    "merged merge": QUICKSTART.replace(LORA, "about: {a: &a {rank: 4}, b: &b {<<: *a, alpha: 8}}\nlora: {<<: *b, rank: 2}"),
    "a date": QUICKSTART + "about: {made: 2024-02-29, at: 2024-01-01 10:00:00}\n",
    "sexagesimal": QUICKSTART + "about: {at: 1:30, ratio: 3:4}\n",
    "norway": QUICKSTART + "about: {no: no, yes: yes, on: off, y: n}\n",
    "number keys": QUICKSTART + "about: {1: one, 2.5: two, true: three}\n",
    "plain tags": QUICKSTART + "about: {a: !!str 1, b: !!int '3', c: !!float 2, d: !!null ''}\n",
    "quoted": QUICKSTART + "about: {a: '1:30', b: \"x\\ty\"}\n",
    "aliases": QUICKSTART + "about: {a: &a [1, 2], b: *a, c: *a}\n",
}


def yaml_cases() -> Iterator[tuple[str, Case]]:
    for name, (content, refused) in YAML_REFUSED.items():
        yield f"yaml {name}", Case(content, refused)
    for name, content in YAML_ACCEPTED.items():
        yield f"yaml {name}", Case(content, None)
    for path in sorted(ROOT.glob("configs/*.yaml")):
        yield f"shipped {path.stem}", Case(path.read_text().replace("base: models/", "base: configs/models/"), None)


SPACE_ACCEPTED = {
    "[4, 8]": "lora.rank",
    "[1e-4, 1e-3]": "train.learning_rate",
    "[yes]": "base.revision",
    "[true, false]": "lora.use_rslora",
    "[alpaca, plain]": "data.template",
    "{choices: [4, 8]}": "lora.rank",
    "{values: [4, 8]}": "lora.rank",
    "{type: choice, values: [4, 8]}": "lora.rank",
    "{min: 4, max: 8}": "lora.rank",
    "{low: 4, high: 8}": "lora.rank",
    "{type: uniform, min: 4, max: 8}": "lora.rank",
    "{distribution: int_uniform, min: 4, max: 8}": "lora.rank",
    "{distribution: log_uniform_values, min: 1e-4, max: 1e-3}": "train.learning_rate",
    "{type: loguniform, low: 1e-4, high: 1e-3}": "train.learning_rate",
    "{min: 1e-4, max: 1e-3, log: true}": "train.learning_rate",
    "{type: suggest_float, low: 1e-4, high: 1e-3}": "train.learning_rate",
    "{type: quniform, low: 0, high: 0.2, q: 0.1}": "lora.dropout",
    "{type: int, low: 4, high: 8, step: 4}": "lora.rank",
    "{type: int, low: 0, high: 1000000000}": "train.seed",
}
SPACE_REFUSED = {
    "8": "set lora.rank in its section",
    "~": "set lora.rank in its section",
    "loguniform(4, 8)": "expected {type: categorical",
    "4..8": "expected {type: categorical",
    "{}": "expected {type: categorical",
    "{value: 8}": "expected {type: categorical",
    "{type: randint, low: 4, high: 8}": "which includes both ends",
    "{distribution: log_uniform, min: 1, max: 3}": "its ends are exponents",
    "{type: normal, mu: 0}": "expected {type: categorical",
    "{type: categorica, choices: [4]}": "did you mean categorical?",
    "{type: 3, choices: [4]}": "expected {type: categorical",
    "{type: categorical, choices: 4}": "expected a list",
    "{type: categorical, choices: '4, 8'}": "expected a list",
    "{type: categorical, choices: qkv}": "expected a list",
    "{type: categorical, choices: {a: 1}}": "expected a list",
    "{type: categorical, choices: []}": "not empty",
    "{type: categorical}": "missing key",
    "[]": "not empty",
    "[4, 4]": "twice",
    "[4, '8']": "is a text",
    "['4', '8']": "is a text",
    "[4, true]": "expected a whole number",
    "[4, 4.5]": "expected a whole number",
    "[4, ~]": "expected a single value",
    "[4, .nan]": "expected",
    "[4, {a: 8}]": "space.lora.rank.1: expected a single value",
    "[4, -8]": "expected a whole number",
    "[4, eight]": "is a text",
    "[[4], [8]]": "stands under `_`",
    "{type: int, low: 8, high: 4}": "above high",
    "{type: int, low: 4}": "missing key",
    "{type: int, low: a, high: 8}": "expected a whole number",
    "{type: int, low: true, high: 8}": "found true",
    "{type: int, low: 0, high: 8, log: true}": "starts above 0",
    "{type: int, low: 4, high: 8, step: 0}": "above 0",
    "{type: int, low: 4, high: 8, steps: 2}": "did you mean 'step'?",
    "{min: 4, low: 4, max: 8}": "two keys say the same",
    "{type: float, low: 4, high: 8}": "expected a whole number",
    "{type: simplex}": "a simplex is the whole of data.mix",
    "{when: {a: 1}, choices: [4, 8]}": "names a categorical parameter",
}


def space_cases() -> Iterator[tuple[str, Case]]:
    for value, path in SPACE_ACCEPTED.items():
        yield f"{path} {value}", Case(changed("space", raw(f"{{{path}: {value}}}")), None)
    for value, refused in SPACE_REFUSED.items():
        yield f"space {value}", Case(changed("space", raw(f"{{lora.rank: {value}}}")), refused)
    others = {
        "{lora: {rank: [4, 8]}}": "write lora.rank: ... in `space`",
        "{lora.rnak: [4, 8]}": "did you mean 'lora.rank'?",
        "{rank: [4, 8]}": "no setting 'rank'; did you mean 'lora.rank'?",
        "{seed: [0, 1]}": "did you mean 'data.seed' or ",
        "{lora.rank: [four, eight]}": "is a text",
        "{lora.rank: ['4..8']}": "is a text",
        "{lora.rank: {type: int, low: 1, high: 1000000000}}": "expected a whole number from 1 to 65,536",
        "{search.seed: [4, 8]}": "no setting",
        "{data.mix: [4, 8]}": "together by `type: simplex`",
        "{lora.target_modules: [[q_proj], [v_proj]]}": "stands under `_`: [{lora.target_modules: [q_proj]}",
        "{lora.dropout: {type: float, low: 0, high: 0.5, step: 1e-10}}": "take wider ones",
        "{train.learning_rate: {type: float, low: 0, high: 1}}": "expected a number above 0",
        "{lora.use_dora: [yes, no]}": "write true or false without quotes",
        "{train.seed: [-1, 0]}": "expected a whole number",
        "{train.seed: {type: int, low: -5, high: 5}}": "expected a whole number",
        "{data.mix: {type: simplex, step: 1e-9}}": "expected a number",
        "{_: [{lora.rank: '8'}]}": "is a text",
        "{_: []}": "not empty",
        "{_: 3}": "space._",
        "[lora.rank]": "expected keys and values",
        "lora.rank": "expected keys and values",
        "{}": "keys and values",
        "~": "expected keys and values",
    }
    for value, refused in others.items():
        yield f"space={value}", Case(changed("space", raw(value)), refused)
    for value in ("[yes, no]", "[4..8]", "{low: 1, high: 1000000000}", "[0, 8]"):
        text = changed("search/sampler", "grid", changed("space", raw(f"{{lora.rank: {value}}}")))
        yield f"a grid of {value}", Case(text, "space: lora.rank = ")
    grid = changed("search/sampler", "grid", changed("space", {"train.seed": {"type": "int", "low": 0, "high": 10**9}}))
    yield "a grid of 10^9", Case(grid, "too many points")
    bases = {f"eval.{role}.{name}": list(range(1, 7)) for role in ("math", "commonsense") for name in ("seed", "batch_size")}
    yield "baselines by the thousand", Case(changed("space", bases), "each with its own baseline")


SEARCH_ACCEPTED = {
    "objectives": (
        "[commonsense.gain]",
        "commonsense.gain",
        "[commonsense.gain, math.forgetting]",
        "{commonsense.gain: maximize}",
        "[{commonsense.gain: max}, {math.drop: min}]",
        "[maximize commonsense.gain]",
        "[{metric: math.drop}]",
        "- math.drop",
        "{metric: commonsense.gain, direction: maximise}",
        "[commonsense.gain max]",
        "{maximize: commonsense.gain}",
        "[{minimize: math.drop}]",
        "{max: commonsense.gain, min: math.drop}",
        "[{metric: commonsense.gain, goal: maximize}]",
        "[{name: commonsense.gain, mode: MAX}]",
        "'commonsense.gain: maximize'",
        "max(commonsense.gain)",
        "[commonsense.gain:maximise]",
        "[{commonsense.gain: }]",
    ),
    "constraints": (
        "math.drop <= 0.1",
        "['math.drop<=10%']",
        "['0.1 >= math.drop']",
        "['math.drop ≤ 0.1']",
        "['math.drop =< 1e-1']",
        "['math.gain >= -5 %']",
        "[]",
    ),
}
SEARCH_REFUSED = {
    "objectives": {
        "-commonsense.gain": "{metric: commonsense.gain, direction: maximize}",
        "[-math.drop]": "{metric: math.drop, direction: minimize}",
        "[+commonsense.gain]": "{metric: commonsense.gain, direction: maximize}",
        "[]": "not empty",
        "~": "expected a list",
        "3": "expected a list",
        "[3]": "{metric: commonsense.gain, direction: maximize}",
        "[commonsense]": "no metric",
        "[gain]": "names a role that is not evaluated",
        "[commonsense.accuracy]": "no metric",
        "[commonsense.gain, commonsense.gain]": "twice",
        "[commonsense.base]": "larger or smaller",
        "[{metric: commonsense.gain, direction: up}]": "expected one of maximize, minimize",
        "[{metric: commonsense.gain, weight: 2}]": "unknown key",
        "[{commonsense.gain: -1}]": "{metric: commonsense.gain, direction: maximize}",
        "{math: {drop: minimize}}": "{metric: math.drop, direction: minimize}",
        "[{math: drop}]": "{metric: math.drop, direction: minimize}",
        "[[commonsense.gain, maximize]]": "{metric: commonsense.gain, direction: maximize}",
        "[commonsense.gain, maximize]": "{metric: commonsense.gain, direction: maximize}",
        "'commonsense.gain, math.drop'": "a list, [commonsense.gain, math.drop]",
        "higher commonsense.gain": "{metric: commonsense.gain, direction: maximize}",
        "[{}]": "{metric: commonsense.gain, direction: maximize}",
        "[{direction: maximize}]": "{metric: commonsense.gain, direction: maximize}",
        "[{weight: 2}]": "{metric: commonsense.gain, direction: maximize}",
        "[true]": "{metric: commonsense.gain, direction: maximize}",
        "[~]": "{metric: commonsense.gain, direction: maximize}",
        "[comonsense.gain]": "did you mean 'commonsense.gain'?",
        "[eval.commonsense.gain]": "did you mean 'commonsense.gain'?",
        "[{metric: 3, direction: maximize}]": "expected a text",
        "[commonsense.gain and math.drop]": "a list, [commonsense.gain, math.drop]",
    },
    "constraints": {
        "['math.drop < 0.1']": 'write "math.drop <= 0.1"',
        "['math.drop > 10%']": 'write "math.drop >= 0.1"',
        "['math.drop == 0.1']": "a constraint reads",
        "['0 <= math.drop <= 0.1']": "a constraint reads",
        "['math.drop']": "a constraint reads",
        "['']": "a constraint reads",
        "['math.drop <= nan']": "a constraint reads",
        "['math.drop <= much']": "a constraint reads",
        "['math.drpo <= 0.1']": "math.drop",
        "['science.drop <= 0.1']": "a role that is not evaluated",
        "[{metric: math.drop, max: 0.1}]": 'write "math.drop <= 0.1"',
        "[{math.drop: 0.1}]": 'write "math.drop <= 0.1"',
        "{math.drop: <= 0.1}": 'write "math.drop <= 0.1"',
        "[0.1]": "expected a text",
        "0.1": "expected a list",
    },
}
DERIVE_REFUSED = {
    "{strength: [0.5], of: {lora.rnak: 8}}": "did you mean 'lora.rank'?",
    "{strength: [0.5], of: {lora: 8}}": "no setting",
    "{strength: [0.5], of: {lora.rank: 7}}": "is never 7",
    "{strength: [0.5], of: {lora.rank: '8'}}": "is never '8'",
    "{strength: [0.5], of: {train.schedule: cosine}}": "is never 'cosine'",
    "{strength: 0.5}": "expected a list",
    "{strength: [true]}": "found true",
    "{strength: [2]}": "above 0 and up to 1.25",
    "{strength: [half]}": "expected a number",
    "{rank: [0]}": "expected a whole number",
    "{off: [x]}": "expected one of",
    "[0.5]": "expected keys and values",
}


def search_cases() -> Iterator[tuple[str, Case]]:
    for key, values in SEARCH_ACCEPTED.items():
        for value in values:
            block = value.startswith("- ")
            text = changed(f"search/{key}", raw(f"\n  {value}" if block else value))
            yield f"{key}: {value}", Case(text, None)
    for key, refused in SEARCH_REFUSED.items():
        for value, words in refused.items():
            yield f"{key}: {value}", Case(changed(f"search/{key}", raw(value)), words)
    for value, words in DERIVE_REFUSED.items():
        yield f"derive: {value}", Case(changed("derive", raw(value)), words)
    yield "derive", Case(changed("derive", raw("{strength: [0.5], of: {lora.rank: 8, train.schedule: constant}}")), None)


SET_REFUSED = {
    "lora.rank=yes": "YAML 1.1 reads yes as true",
    "lora.rank=1:30": "YAML 1.1 reads 1:30 as 90",
    "lora.rank=true": "found true",
    "lora.rank=": "found null",
    "lora.rank=[1": "not a YAML value",
    "lora.rank=2024-13-45": "is no date",
    "lora.rank=" + "9" * 5000: "5,000 digits",
    "lora.rank=" + "[" * 100_000: "50 levels",
    "lora.rank=&a [*a]": "inside &a",
    "lora.rank": "expected PATH=VALUE",
    "=3": "expected PATH=VALUE",
    "lora.=3": "expected PATH=VALUE",
    "lora..rank=3": "expected PATH=VALUE",
    "lora.rnak=3": "did you mean 'rank'?",
    "trials=20": "search.trials",
    "name.x=3": "does not lead to a key",
    "search.objectives.0.metric=x": "does not lead to a key",
    "lora=3": "expected keys and values",
    "name=ledger": "folder of the records",
    "space.lora.rank=8": "set lora.rank in its section",
    "space.lora.alpha=[8, '16']": "is a text",
    "data.seed=-1": "expected a whole number",
    "search.constraints=math.drop < 1": 'write "math.drop <= 1.0"',
}
SET_ACCEPTED = (
    "lora.rank=4",
    "lora.rank=010",
    "train.learning_rate=1e-4",
    "space.lora.alpha=[8, 16]",
    "name=x",
    "lora.use_dora=no",
)
SET_ACCEPTED += (
    "space={lora.rank: [2, 4]}",
    "space.lora.rank.choices=[4, 8]",
    "search.objectives=commonsense.gain",
    "base.revision=on",
)
SET_ACCEPTED += ("space.lora.dropout={min: 0, max: 0.2}", "data.mix={micro/alpaca: 0.5, micro/gsm8k: 0.5}", "search.trials=1e1")


def set_cases() -> Iterator[tuple[str, Case]]:
    for override, refused in SET_REFUSED.items():
        yield f"--set {override[:40]}", Case(QUICKSTART, refused, (override,))
    for override in SET_ACCEPTED:
        yield f"--set {override}", Case(QUICKSTART, None, (override,))


ALL = [
    *number_cases(),
    *word_cases(),
    *key_cases(),
    *yaml_cases(),
    *space_cases(),
    *search_cases(),
    *set_cases(),
]


def test_there_are_configs_by_the_hundred():
    assert len(ALL) >= 500


@pytest.mark.parametrize("case", cases(ALL))
def test_a_config_is_accepted_or_refused_in_one_line_with_its_place(case, refusal):
    began = time.monotonic()
    found = refusal(case)
    assert time.monotonic() - began < 10
    if case.refusal is None:
        assert found is None
        return
    assert found is not None, "accepted"
    assert case.refusal in found
    assert len(found.splitlines()) == 1, found
    assert len(found) < 1000
    assert re.match(r"/c\.yaml:\d+:\d+: |--set ", found), found
    assert not [word for word in FOREIGN if word in found], found
