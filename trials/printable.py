"""Makes foreign text (names, paths, messages) safe to print on a terminal."""

import os
import re
import unicodedata
from collections.abc import Mapping, Sequence

_HARMLESS = "\n\t\u200c\u200d\xad"  # newline, tab; joiners of scripts and emoji; the soft hyphen
_FOREIGN = re.compile(r"[^ -~\w]")  # a fast first pass; categories decide

_IN_URL = re.compile(r"(://[^:/@\s]*:)\S*@|(https?://)[^:/@\s]+@")  # in a web address, a single word before @ is a token
_SECRET = (
    r"p(?:a|%61)ss(?:word|wd|phrase)|pwd|secret|(?:api|private)[_-]?key|(?:access|account)[_-]?key(?:_id)?"
    r"|(?:access|auth|api|hf|session|security)[_-]?token"
)
_VALUE = r"(?:(?P<quote>\\?['\"])(?:(?!(?P=quote))(?:\\.|.))+|[^&\s'\"]+)"  # in quotes it may have blanks
_PARAMETER = re.compile(
    rf"(?P<name>(?:{_SECRET}|[?&](?:token|key|sig|signature)|(?<=['\"])token(?=\\?['\"]))(?:\\?['\"])?[ \t]*[:=][ \t]*"
    r"|--(?:(?:access|api|auth|hf|hub)-)?(?:token|password|passphrase|api-key|secret)(?:\s+|=))" + _VALUE,
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(rf"token|key|.*(?:{_SECRET}).*", re.IGNORECASE)
_AUTHORIZATION = re.compile(
    r"(authorization\\?['\"]?[ \t]*[:=][ \t]*\\?['\"]?(?:basic|bearer|token)\s+)[^\s'\"\\,;]+", re.IGNORECASE
)
_TOKEN = re.compile(
    r"\b(hf_|gh[oprsu]_|github_pat_|glpat-|xox[abeprs]-|A[KS]IA|AIza|Bearer )[A-Za-z0-9._-]{8,}|\b(sk-)[A-Za-z0-9_-]{16,}"
)
_SECRET_VARIABLE = re.compile(
    r"TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|PGPASS|API_?KEY|ACCESS_?KEY|CREDENTIAL|(?:^|_)(?:KEY|PASS)$|_(?:PWD|PAT)$",
    re.IGNORECASE,
)
_PLACE = re.compile(r"_(?:FILE|PATH|DIR)$", re.IGNORECASE)
_SHORTEST = 8  # characters of a value that is hidden: a shorter one would hide parts of words


def printable(text: object) -> str:
    """The text without passwords, with control, bidi and invisible characters escaped, such as \\x1b and \\u202e."""
    return _FOREIGN.sub(_escaped, without_passwords(str(text)))


def without_passwords(text: str) -> str:
    """The text with *** for passwords in URLs, parameters, JSON and headers, and for tokens and keys with a known prefix."""
    text = _PARAMETER.sub(lambda found: f"{found['name']}{found['quote'] or ''}***", _IN_URL.sub(r"\1\2***@", text))
    return _TOKEN.sub(r"\1\2***", _AUTHORIZATION.sub(r"\1***", text))


def without_secrets(text: str, values: Sequence[str]) -> str:
    """The text `without_passwords`, and with *** for these values."""
    for value in values:
        text = text.replace(value, "***")
    return without_passwords(text)


def secrets(environment: Mapping[str, str]) -> list[str]:
    """Values of environment variables whose name says that they are secret, the longest first."""
    named = [(name, value) for name, value in environment.items() if _SECRET_VARIABLE.search(name) and len(value) >= _SHORTEST]
    found = {value for name, value in named if not _PLACE.search(name) and not _is_path(value)}
    return sorted(found, key=len, reverse=True)


def _is_path(value: str) -> bool:
    """Whether the value names a file of this machine. A secret may begin with a slash, too."""
    return os.path.isabs(value) and os.path.lexists(value)  # noqa: PTH117  # pathlib raises for a long one


def printable_setting(name: str, value: object) -> str:
    """The printable value of a setting; *** where its name is that of a secret, such as token or api_key."""
    return "***" if _SECRET_NAME.fullmatch(name) else printable(value)


def one_line(text: object) -> str:
    """`printable` text with each run of whitespace as one blank."""
    return " ".join(printable(text).split())


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    if character in _HARMLESS or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
