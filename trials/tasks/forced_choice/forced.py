"""A word problem as a forced choice: its own solution up to the result, then four numbers of which one is the result.

Nothing is generated and no format is asked for, so what falls here is arithmetic, and what falls in the generated task alone is
format, or an error made on the way. The documents are the generated task's, with its indices, hashes and few-shot rows.
A reader who cannot calculate may still do better than one in four: the result is the largest of the numbers in about half of
GSM8K's problems, and mostly the one that the text so far has not. Compare with the base, not with 0.25.

The choices are whole numbers of different lengths, so each ends with what ends the number in the solution (">>", a full stop
and the line's end): "1" would otherwise be the beginning of "18" and at least as likely, whatever the model knows.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
_CALCULATION = re.compile(r"<<[^<>]*=\D*?(\d[\d,.]*|\.\d+)>>")  # its result
_FINAL = re.compile(r"####\s*\$?(-?[\d.,]+)")
_END = re.compile(r">>|[.,]?.", re.DOTALL)  # of a number: "18." would begin "18.5"
_LAST_END = "\n\n"  # where nothing follows: what stands between few-shot rows
_CHOICES = 4

Doc = Mapping[str, str]


def context(doc: Doc) -> str:
    """The question and the gold solution up to its result."""
    return f"Question: {doc['question']}\nAnswer: {doc['answer'][: _result(doc['answer'])[0]]}"


def choices(doc: Doc) -> list[str]:
    """The result and three other numbers, by size, each with the end that the result has in the solution."""
    answer = doc["answer"]
    begin, end = _result(answer)
    gold, following = answer[begin:end], _END.match(answer, end)
    closing = following.group() if following else _LAST_END
    return [(gold if value == _value(gold) else _written(value, gold)) + closing for value in _values(doc)]


def label(doc: Doc) -> int:
    """The result's place among the choices."""
    return _values(doc).index(_value(doc["answer"][slice(*_result(doc["answer"]))]))


def _values(doc: Doc) -> list[Decimal]:
    """Of the choices: the result and the three numbers of the text that are nearest to it, filled up with some near it."""
    gold, body = _value(doc["answer"][slice(*_result(doc["answer"]))]), _body(doc["answer"])
    own = {_value(one) for one in _NUMBER.findall(f"{doc['question']}\n{body}")} - {gold}
    nearest = sorted(own, key=lambda value: (abs(value - gold), value))[: _CHOICES - 1]
    near = (gold + 1, gold * 2, gold + 10, gold + 2, gold + 3)
    return sorted(list(dict.fromkeys([gold, *nearest, *near]))[:_CHOICES])


def _result(answer: str) -> tuple[int, int]:
    """Where the final number stands first as a result: in the last calculation that gives it, else its last place in the text.

    After the marker, where the text before it does not hold the number. Where it comes again later, the choice would be a copy.
    """
    final = _FINAL.search(answer)
    if final is None:
        raise ValueError(f"a solution without a number after ####: {answer[-80:]!r}")
    body, gold = _body(answer), _value(final[1])
    results = [found.span(1) for found in _CALCULATION.finditer(body) if _value(found[1]) == gold]
    places = [found.span() for found in _NUMBER.finditer(body) if _value(found.group()) == gold]
    return (results or places or [final.span(1)])[-1]


def _body(answer: str) -> str:
    return answer.rpartition("####")[0]


def _value(text: str) -> Decimal:
    return Decimal(text.replace(",", "").rstrip("."))


def _written(value: Decimal, like: str) -> str:
    """As the solution writes its result: with commas between thousands where that has them, and without an exponent."""
    return f"{value.normalize():{',' if ',' in like else ''}f}"
