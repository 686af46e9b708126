"""Foreign text for a terminal: names, paths and messages that others wrote are shown, never obeyed."""

import re
import unicodedata

_HARMLESS = "\n\t\u200c\u200d\xad"  # line end, tab; joiners of scripts and emoji; the soft hyphen
_FOREIGN = re.compile(r"[^ -~\w]")

_IN_URL = re.compile(r"(://[^:/@\s]*:)\S*@|(https?://)[^:/@\s]+@")  # of a web address what stands alone before @ is a token
_SECRET = (
    r"p(?:a|%61)ss(?:word|wd)|pwd|secret|api[_-]?key|(?:access|account)[_-]?key(?:_id)?"
    r"|(?:access|auth|api|hf|session|security)[_-]?token"
)
_PARAMETER = re.compile(rf"((?:{_SECRET}|[?&](?:token|key|sig|signature))\s?=\s?['\"]?)[^&\s'\"]+", re.IGNORECASE)
_TOKEN = re.compile(r"\b(hf_|ghp_|glpat-|AKIA|Bearer )[A-Za-z0-9._-]{8,}")


def printable(text: object) -> str:
    """The text without passwords, and with every control, bidi or invisible character as its escape: \\x1b, \\u202e."""
    return _FOREIGN.sub(_escaped, without_passwords(str(text)))


def without_passwords(text: str) -> str:
    """The text with *** for passwords in URLs and parameters, and for tokens and keys that are known by how they begin."""
    return _TOKEN.sub(r"\1***", _PARAMETER.sub(r"\1***", _IN_URL.sub(r"\1\2***@", text)))


def one_line(text: object) -> str:
    """The same, with each run of blanks and line ends as one blank."""
    return " ".join(printable(text).split())


def _escaped(match: re.Match[str]) -> str:
    one = match[0]
    if one in _HARMLESS or unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return one
    return one.encode("unicode_escape", "surrogatepass").decode("ascii")
