"""Makes foreign text (names, paths, messages) safe to print on a terminal."""

import re
import unicodedata

_HARMLESS = "\n\t\u200c\u200d\xad"  # newline, tab; joiners of scripts and emoji; the soft hyphen
_FOREIGN = re.compile(r"[^ -~\w]")  # a fast first pass; categories decide

_IN_URL = re.compile(r"(://[^:/@\s]*:)\S*@|(https?://)[^:/@\s]+@")  # in a web address, a single word before @ is a token
_SECRET = (
    r"p(?:a|%61)ss(?:word|wd)|pwd|secret|api[_-]?key|(?:access|account)[_-]?key(?:_id)?"
    r"|(?:access|auth|api|hf|session|security)[_-]?token"
)
_PARAMETER = re.compile(rf"((?:{_SECRET}|[?&](?:token|key|sig|signature))\s?=\s?['\"]?)[^&\s'\"]+", re.IGNORECASE)
_SECRET_NAME = re.compile(rf"token|key|.*(?:{_SECRET}).*", re.IGNORECASE)
_TOKEN = re.compile(r"\b(hf_|ghp_|glpat-|AKIA|Bearer )[A-Za-z0-9._-]{8,}")


def printable(text: object) -> str:
    """The text without passwords, with control, bidi and invisible characters escaped, such as \\x1b and \\u202e."""
    return _FOREIGN.sub(_escaped, without_passwords(str(text)))


def without_passwords(text: str) -> str:
    """The text with *** for passwords in URLs and parameters, and for tokens and keys with a known prefix."""
    return _TOKEN.sub(r"\1***", _PARAMETER.sub(r"\1***", _IN_URL.sub(r"\1\2***@", text)))


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
