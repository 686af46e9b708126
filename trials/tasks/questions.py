"""Questions of a file as a benchmark, without YAML of lm-eval: `eval.ROLE: {questions: FILE, prompt, answer, score, ...}`.

Each row is rendered to a prompt and an answer by bounded templates, and checked. A folder in the cache then holds the rows and
their lm-eval task; the role becomes `{task, metric, include: FOLDER}`, so it is pinned, shipped and scored as any own task.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet
import yaml

from trials.benchmark_presets import OF_QUESTIONS
from trials.data import compression, row_files
from trials.data.sandbox import ERRORS, Sandbox, present, reason
from trials.errors import InputError
from trials.explain import placed
from trials.hub import fingerprint
from trials.ledger import local_files
from trials.ledger.storage import local
from trials.tasks import answers

PROMPT, ANSWER, CHOICES = "Question: {{question}}\nAnswer:", "{{answer}}", "choices"
SCORES = {"exact": answers.exact, "contains": answers.contains, "numeric": answers.numeric}
_REGEX = "regex:"
_SCORES = f"{', '.join(SCORES)}, choice or {_REGEX}PATTERN"
_TAKEN = ("task", "preset", "metric", "filter", "flexible", "include", "trust_code")
_MAX_TOKENS = 256
_COLUMN = re.compile(r"\s*(?:\{\{\s*(\w+)\s*\}\}|(\w+))\s*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_PLAIN, _TYPED = "questions.jsonl", "questions.arrow"
_HEADER = "# Made by slimsweep from a file of questions. `include` of a role, or lm-eval's --include_path, reads it.\n"

Row = Mapping[str, Any]
Render = Callable[[Row], str]


def expand(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a role with `questions` as those of a role with `include`.

    Writes the task's folder. Raises an error that pydantic reports at its place in the config.
    """
    _check(given)
    for key in (key for key in _TAKEN if key in given):
        raise placed((key,), f"a role with questions has its own {key}; leave one of the two out")
    asked = {key: given[key] for key in OF_QUESTIONS if key in given}
    others = {key: value for key, value in given.items() if key not in OF_QUESTIONS}
    try:
        path = local(asked["questions"])
        task = _Task(path, asked, chat=bool(given.get("chat_template")))
        docs = list(task.documents(_rows(path)))
        folder = _written(task.name, task.config(_data(docs)), docs)
    except InputError as error:
        raise placed(("questions",), str(error)) from None
    return others | {"task": task.name, "metric": task.metric, "include": str(folder)}


# ---------------------------------------------------------------------- the config


def ends_by_template(given: Mapping[str, Any]) -> bool:
    """Whether the end of a response depends on `chat_template`: a role with questions that generates, without `until`."""
    return "questions" in given and "until" not in given and _score(given) != "choice"


def _check(given: Mapping[str, Any]) -> None:
    for key in (key for key in given if key not in OF_QUESTIONS):
        if near := difflib.get_close_matches(str(key), OF_QUESTIONS, n=1, cutoff=0.75):
            raise placed((key,), f"unknown key; did you mean {near[0]!r}?")
    for key in ("questions", "prompt", "answer", "score"):
        if key in given and not (isinstance(given[key], str) and given[key].strip()):
            raise placed((key,), "expected a text")
    choices, until, most = given.get("choices", ""), given.get("until", []), given.get("max_tokens", 1)
    if not isinstance(choices, str) and not (_texts(choices) and len(choices) > 1):
        raise placed(("choices",), "expected the name of a column, a template with a choice a line, or a list of templates")
    if not isinstance(until, str) and not _texts(until):
        raise placed(("until",), "expected a text, or a list of texts, that ends a response")
    if not isinstance(most, int) or isinstance(most, bool) or most < 1:
        raise placed(("max_tokens",), "expected a whole number, 1 or more")
    score = _score(given)
    if score.startswith(_REGEX):
        try:
            re.compile(score.removeprefix(_REGEX))
        except re.error as error:
            raise placed(("score",), f"{score!r} is no regular expression: {error}") from None
    elif score not in (*SCORES, "choice"):
        near = difflib.get_close_matches(score, (*SCORES, "choice"), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise placed(("score",), f"no score {score!r}; {hint}allowed: {_SCORES}")
    if score != "choice" and "choices" in given:
        raise placed(("choices",), f"choices are scored by score: choice, not {score}")
    for key in ("until", "max_tokens"):
        if score == "choice" and key in given:
            raise placed((key,), "nothing is generated where choices are scored; leave it out")


def _texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) and one for one in value)


def _score(given: Mapping[str, Any]) -> str:
    return str(given.get("score", "choice" if "choices" in given else "exact"))


# ---------------------------------------------------------------------- the task


class _Task:
    """The lm-eval task of a file of questions. Raises an error with its key for a template that cannot be used."""

    def __init__(self, path: Path, asked: Mapping[str, Any], chat: bool):
        self._asked, self._chat, self._score = asked, chat, _score(asked)
        self.name = re.sub(r"\W+", "_", path.name.partition(".")[0]).strip("_") or "questions"
        self.metric = {"choice": "acc"}.get(self._score, self._score if self._score in SCORES else "exact_match")
        self._sandbox = Sandbox()
        self._prompt = self._template("prompt", asked.get("prompt", PROMPT))
        self._answer = self._template("answer", asked.get("answer", ANSWER))
        self._choices = self._choice_reader(asked.get("choices", CHOICES)) if self._score == "choice" else None

    def config(self, data: str) -> str:
        """The task's YAML, with the name of its file of documents."""
        prompt = self._asked.get("prompt", PROMPT)
        config: dict[str, Any] = {
            "task": self.name,
            "dataset_path": "arrow" if data == _TYPED else "json",
            "dataset_kwargs": {"data_files": {"test": data}},
            "test_split": "test",
            "fewshot_split": "test",  # a prompt leaves out its own document
            "fewshot_config": {"sampler": "first_n"},
            "doc_to_text": "prompt",
            "target_delimiter": "" if prompt[-1:].isspace() else " ",
        }
        if self._choices is not None:
            config |= {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "label"}
        else:
            generation = {"until": self._until(prompt), "max_gen_toks": self._asked.get("max_tokens", _MAX_TOKENS)}
            config |= {"output_type": "generate_until", "doc_to_target": "answer"}
            config["generation_kwargs"] = generation | {"do_sample": False}
        if self._score.startswith(_REGEX):
            pattern = {"function": "regex", "regex_pattern": self._score.removeprefix(_REGEX), "group_select": 0}
            config["filter_list"] = [{"name": "none", "filter": [pattern, {"function": "take_first"}]}]
        config["metric_list"] = [{"metric": self.metric, "aggregation": "mean", "higher_is_better": True}]
        text = _HEADER + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        return text + (f"process_results: !function trials.tasks.answers.{self._score}\n" if self._score in SCORES else "")

    def _until(self, prompt: str) -> list[str]:
        """By default a base model stops before the next question, and a chat ends by itself."""
        if "until" in self._asked:
            until = self._asked["until"]
            return [until] if isinstance(until, str) else list(until)
        begins = prompt.partition("{{")[0].strip()
        return [] if self._chat else ["\n\n", *([begins] if begins else [])]

    def documents(self, rows: Iterator[tuple[str, Row]]) -> Iterator[dict[str, Any]]:
        """The rows as the task's documents. Raises InputError, with file and row, for the first that is none."""
        # Jinja drops the line break at a template's end
        end = "\n" if self._asked.get("prompt", PROMPT).endswith("\n") else ""
        for where, row in rows:
            shown = present(dict(row))
            prompt, answer = self._prompt(where, shown) + end, self._answer(where, shown).strip()
            _check_unicode(where, prompt, answer)
            if not prompt.strip():
                raise InputError(f"{where}: the prompt is empty")
            if not answer:
                raise InputError(f"{where}: the answer is empty")
            if self._score == "numeric" and answers.number(answer) is None:
                raise InputError(f"{where}: score numeric needs an answer with a number, and this one is {answer[:60]!r}")
            doc: dict[str, Any] = {"prompt": prompt, "answer": answer}
            if self._choices is not None:
                choices = self._choices(where, shown)
                _check_unicode(where, *choices)
                doc |= {"choices": choices, "label": _label(where, answer, choices)}
            yield doc

    def _template(self, key: str, text: str) -> Callable[[str, Row], str]:
        try:
            render = self._sandbox.compiled(text)
        except ERRORS as error:
            raise placed((key,), f"{text[:80]!r}: template: {reason(error)}") from None
        return partial(_rendered, key, f"{text[:80]!r}", render)

    def _choice_reader(self, wanted: str | list[str]) -> Callable[[str, Row], list[str]]:
        """A function of a row's place and columns that returns its choices."""
        if not isinstance(wanted, str):
            return partial(_each, [self._template("choices", one) for one in wanted])
        if column := _COLUMN.fullmatch(wanted):
            return partial(_listed, column[1] or column[2])
        return partial(_lines, self._template("choices", wanted))


def _rendered(key: str, text: str, render: Render, where: str, row: Row) -> str:
    try:
        return render(row)
    except ERRORS as error:
        undefined = re.match("'(.*)' is undefined", str(error))
        near = difflib.get_close_matches(undefined[1], row, n=1) if undefined else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise placed((key,), f"{where}: {text}: {reason(error)}; the columns are {', '.join(row)}{hint}") from None


def _each(renders: list[Callable[[str, Row], str]], where: str, row: Row) -> list[str]:
    return _usable([render(where, row) for render in renders], where)


def _lines(render: Callable[[str, Row], str], where: str, row: Row) -> list[str]:
    return _usable(render(where, row).strip().splitlines(), where)


def _listed(column: str, where: str, row: Row) -> list[str]:
    if column not in row:
        raise InputError(f"{where}: choices: no column {column!r}; the columns are {', '.join(row)}")
    found: Any = row[column]
    if isinstance(found, str) and found.lstrip().startswith("["):  # a table of text has no lists
        try:
            found = json.loads(found)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: choices: column {column!r} is no JSON list: {error}") from None
    if not isinstance(found, list | tuple) or not all(isinstance(one, str | int | float) for one in found):
        raise InputError(f"{where}: choices: column {column!r} is no list of texts; give a list of templates instead")
    return _usable([str(one) for one in found], where)


def _usable(choices: list[str], where: str) -> list[str]:
    choices = [choice.strip() for choice in choices]
    if len(choices) < 2:
        raise InputError(f"{where}: {len(choices)} choice{'' if len(choices) == 1 else 's'}; at least two are needed")
    if "" in choices or len(set(choices)) < len(choices):
        raise InputError(f"{where}: choices that are empty or twice there: {', '.join(map(repr, choices))[:120]}")
    return choices


def _label(where: str, answer: str, choices: list[str]) -> int:
    """The answer's number: it is one of the choices, its letter (A is the first) or its number (0 is the first)."""
    if answer in choices:
        return choices.index(answer)
    number = int(answer) if answer.isdecimal() else ord(answer) - ord("A") if re.fullmatch("[A-Z]", answer) else -1
    if not 0 <= number < len(choices):
        raise InputError(f"{where}: the answer {answer[:60]!r} is none of the choices {', '.join(map(repr, choices))[:120]}")
    return number


# ---------------------------------------------------------------------- files


def _rows(path: Path) -> Iterator[tuple[str, Row]]:
    """("FILE: row N", row) of every row."""
    if not path.is_file():
        raise InputError(f"{path}: there is no such file")
    if not row_files.known(path):
        raise InputError(f"{path} is none of {row_files.endings()}")
    kind = row_files.TABLES.get(row_files.ending(path))
    number = 0
    for number, (line, row) in enumerate(_table(path, kind) if kind else row_files.read(path), 1):
        yield f"{path}: row {number}{f' (line {line})' if line not in (0, number) else ''}", row
    if number == 0:
        raise InputError(f"{path}: has no rows")


def _table(path: Path, kind: str) -> Iterator[tuple[int, Row]]:
    """The rows of a Parquet or Arrow file, which have no lines."""
    with compression.readable(path), compression.opened(path) as file:
        content = pa.BufferReader(file.read())
    try:
        if kind == "parquet":
            table = pyarrow.parquet.read_table(content)
        else:
            with suppress(pa.ArrowInvalid):  # `datasets` writes streams
                yield from ((0, row) for row in pyarrow.ipc.open_stream(content).read_all().to_pylist())
                return
            content.seek(0)
            table = pyarrow.ipc.open_file(content).read_all()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read: {' '.join(str(error).split())[:160]}") from None
    yield from ((0, row) for row in table.to_pylist())


def _check_unicode(where: str, *texts: str) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            character = f"\\u{ord(text[error.start]):04x}"
            raise InputError(f"{where}: {character} is half of a character (a surrogate), which no file can hold") from None


def _data(docs: list[dict[str, Any]]) -> str:
    """The name of the file of documents. A file of JSON has no types, and `datasets` would read a column of dates as times."""
    texts = (text for doc in docs for text in (doc["prompt"], doc["answer"], *doc.get("choices", ())))
    return _TYPED if any(map(_DATE.match, texts)) else _PLAIN


def _table_of(docs: list[dict[str, Any]]) -> bytes:
    types = {"prompt": pa.string(), "answer": pa.string(), "choices": pa.list_(pa.string()), "label": pa.int64()}
    table = pa.Table.from_pylist(docs, pa.schema({name: types[name] for name in docs[0]}))
    sink = pa.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def _written(name: str, config: str, docs: list[dict[str, Any]]) -> Path:
    """The folder of the task in the cache. Its name is a checksum of its content, so that it never changes."""
    texts = {_PLAIN: "".join(f"{json.dumps(doc, ensure_ascii=False)}\n" for doc in docs), f"{name}.yaml": config}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode()).hexdigest()[:16]
    folder = fingerprint.cache("questions") / f"{name}-{digest}"
    files = {file: text.encode() for file, text in texts.items()}
    if _data(docs) == _TYPED:
        files[_TYPED] = _table_of(docs)
        del files[_PLAIN]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            if not (folder / file).is_file() or (folder / file).read_bytes() != content:
                local_files.replace(folder / file, partial(Path.write_bytes, data=content))
    except OSError as error:
        raise InputError(
            f"{folder}: {error.strerror}; the task is written there: set HF_HOME to a folder to write to"
        ) from None
    return folder
