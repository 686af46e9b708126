"""A word problem as a forced choice: its gold solution up to the result, then four numbers, one of which is the result.

Nothing is generated and no format is required. So a loss here is a loss of arithmetic; a loss in the generated task only is a
loss of format, or an error in an earlier step. The documents are those of the generated task, with its indices, hashes and
few-shot rows. Compare with the base, not with 0.25: the result is the largest number in about half of GSM8K's problems, and
mostly the one that the text does not contain yet.
"""

import re
from collections.abc import Mapping
from decimal import Decimal

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")
_CALCULATION = re.compile(r"<<[^<>]*=\D*?(\d[\d,.]*|\.\d+)>>")  # captures the result
_FINAL = re.compile(r"####\s*\$?(-?[\d.,]+)")
_END = re.compile(r">>|[.,]?.", re.DOTALL)  # after a number: "18." would be a prefix of "18.5"
_LAST_END = "\n\n"  # at the end of a solution: the separator of few-shot rows
_CHOICES = 4

Doc = Mapping[str, str]


def context(doc: Doc) -> str:
    """The question and the gold solution up to its result."""
    return f"Question: {doc['question']}\nAnswer: {doc['answer'][: _result(doc['answer'])[0]]}"


def choices(doc: Doc) -> list[str]:
    """The result and three other numbers, sorted, each followed by the text after the result in the solution."""
    answer = doc["answer"]
    begin, end = _result(answer)
    gold, following = answer[begin:end], _END.match(answer, end)
    # without it "1" would be a prefix of "18", and at least as likely for any model
    closing = following.group() if following else _LAST_END
    return [(gold if value == _value(gold) else _written(value, gold)) + closing for value in _values(doc)]


def label(doc: Doc) -> int:
    """The index of the result among the choices."""
    return _values(doc).index(_value(doc["answer"][slice(*_result(doc["answer"]))]))


def _values(doc: Doc) -> list[Decimal]:
    """The values of the choices: the result and the three nearest numbers of the text, completed by numbers near the result."""
    gold, body = _value(doc["answer"][slice(*_result(doc["answer"]))]), _body(doc["answer"])
    own = {_value(one) for one in _NUMBER.findall(f"{doc['question']}\n{body}")} - {gold}
    nearest = sorted(own, key=lambda value: (abs(value - gold), value))[: _CHOICES - 1]
    near = (gold + 1, gold * 2, gold + 10, gold + 2, gold + 3)
    return sorted(list(dict.fromkeys([gold, *nearest, *near]))[:_CHOICES])


def _result(answer: str) -> tuple[int, int]:
    """The span of the final number: as the result of its last calculation, else its last occurrence before the marker.

    The span after the marker is the last resort: there the choice would only be a copy of an earlier number.
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
    """The value in the notation of `like`: with commas between thousands where that has them, without an exponent."""
    return f"{value.normalize():{',' if ',' in like else ''}f}"
