"""Words of a command line whose values are texts: names, labels, prompts and paths, taken as they were typed.

Hydra would read `run=12345_7` as the number 123457 and refuse `results=数据`, and OmegaConf would
replace `${…}`.  So such a value is put between quotes before Hydra sees it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from srbench.errors import UserError

# the last part of the keys whose values are texts; a test compares them with the settings' own types
TEXTS = frozenset(
    "run results store shard name reference keep plugins label prompts extended info dimensions source "
    "revision subfolder weight_name negative_prompt address gpu device".split()
)
LISTS = frozenset(("plugins", "prompts", "dimensions"))  # those whose value may be a list
_WORD = re.compile(r"(\+{0,2}(?:[^=]*\.)?([^=.]*))=(.*)", re.DOTALL)
_QUOTED = re.compile(r"""(?P<quote>["'])(?P<inner>(?:\\.|(?!(?P=quote))[^\\])*)(?P=quote)""", re.DOTALL)
_SWEEP = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\(.*\)", re.DOTALL)
# what Hydra reads as this very text: no number, no null, nothing that it or OmegaConf replaces
_PLAIN = re.compile(r"(?!(?:null|true|false|inf|nan)$)[A-Za-z_/][A-Za-z0-9_./-]*", re.IGNORECASE)
_GROUPED = re.compile(r"(?<![\w.])[+-]?\d+(?:_\d+)+(?!\w)")  # a number to Hydra, a name to others
_OPEN, _CLOSED = "([{", ")]}"


def as_typed(word: str, multirun: bool) -> str:
    """An override whose text Hydra reads as it was typed; any other override as it is.

    multirun: commas part the values of a sweep, as with -m.
    Raises UserError, with the quotes to write, where it is not clear which text was meant.

    >>> as_typed("run=12345_7", False), as_typed("run=job_7", False), as_typed("run=a b,7", True)
    ('run="12345_7"', 'run=job_7', 'run="a b","7"')
    >>> as_typed("suite.prompts=[it's a dog, 1984]", False)
    'suite.prompts=["it\\'s a dog","1984"]'
    """
    if re.search("[\ud800-\udfff]", word):
        raise UserError(repr(word), "a word in UTF-8", "rename what it names, or correct the word")
    match = _WORD.fullmatch(word)
    if match is None or match[1].startswith("-"):
        return word
    key, name, value = match.groups()
    if name not in TEXTS:
        _refuse_grouped(key, value)
        return word
    if value in ("", "null") or (multirun and _SWEEP.fullmatch(value)):
        return word
    try:
        items = _parted(value) if multirun else [value]
        return f"{key}={','.join(_item(name, item) for item in items)}"
    except ValueError:
        raise _unclear(word, name) from None


def quoted(text: str) -> str:
    r"""A text as Hydra and OmegaConf read it back.

    >>> print(quoted('a "big" ${x}\\'))
    "a \"big\" \${x}\\"
    """
    return in_quotes(re.sub(r"(\\*)\$\{", r"\1\1\\${", text))


def in_quotes(text: str) -> str:
    """A text as Hydra alone reads it back, where OmegaConf does not look for `${…}`."""
    return '"' + re.sub(r'(\\*)("|\Z)', lambda m: m[1] * 2 + m[2].replace('"', r"\""), text) + '"'


def _item(name: str, value: str) -> str:
    """One value: a text, or a list of texts."""
    if name in LISTS and value.startswith("["):
        if not value.endswith("]"):
            raise ValueError
        texts = [_unquoted(t) for t in _parted(value[1:-1])] if value[1:-1].strip() else []
        return f"[{','.join(map(text, texts))}]"
    if name == "prompts" and value.isdecimal():  # how many
        return value
    return text(_unquoted(value))


def text(typed: str) -> str:
    """A text as it stands in an override: between quotes where it needs them."""
    return typed if _PLAIN.fullmatch(typed) else quoted(typed)


def _unquoted(value: str) -> str:
    r"""The text of a value between quotes, in which a backslash stands before a quote; else the value.

    >>> print(_unquoted(r'"a \"big\" \n"'), _unquoted('"a" b'))
    a "big" \n "a" b
    """
    if (match := _QUOTED.fullmatch(value)) is None:
        return value
    return re.sub(
        rf"(\\+)({match['quote']}|\Z)",
        lambda m: "\\" * (len(m[1]) // 2) + m[2],
        match["inner"],
        flags=re.DOTALL,
    )


def _parted(values: str) -> list[str]:
    """Values between commas.  Raises ValueError where quotes or brackets allow another reading."""
    found = [v.strip() for v in _pieces(values)]
    if not all(map(_is_clear, found)):
        raise ValueError
    return found


def _pieces(values: str) -> Iterator[str]:
    """What stands between the commas outside of quotes and brackets."""
    start = at = depth = 0
    while at < len(values):
        if not values[start:at].strip() and (match := _QUOTED.match(values, at)):
            at = match.end()
            continue
        c = values[at]
        if c == "\\":
            at += 1  # what follows belongs to it
        if c == "," and depth == 0:
            yield values[start:at]
            start = at + 1
        depth = max(0, depth + (c in _OPEN) - (c in _CLOSED))
        at += 1
    yield values[start:]


def _is_clear(value: str) -> bool:
    """Whether a value is between quotes, or has none that could be meant as such, and closed brackets."""
    if _QUOTED.fullmatch(value):
        return True
    if not value or not _is_balanced(value) or re.search(r"\\[,\\\"'()\[\]{}]", value):
        return False
    return not set("\"'") & set(re.sub(r"(?<=\w)'(?=\w)", "", value))  # as in "it's"


def _is_balanced(text: str) -> bool:
    waiting = ""
    for c in text:
        if c in _OPEN:
            waiting += c
        elif c in _CLOSED:
            if waiting[-1:] != _OPEN[_CLOSED.index(c)]:
                return False
            waiting = waiting[:-1]
    return not waiting


def _refuse_grouped(key: str, value: str) -> None:
    """Raise UserError for a number such as 12345_7, from which Hydra takes the underscore."""
    if found := _GROUPED.search(_QUOTED.sub("", value)):
        number = found[0]
        raise UserError(
            f"{key}={value}, where Hydra reads {number} as {number.replace('_', '')}",
            "a number without underscores, or a text between quotes",
            f'write {number.replace("_", "")}, or "{number}" inside the quotes of the shell',
        )


def _unclear(word: str, name: str) -> UserError:
    """The mistake in a word that has several readings, with the likeliest one in quotes."""
    key, _, value = word.partition("=")
    is_list = name in LISTS and value.startswith("[")
    inner = value[1:].removesuffix("]") if is_list else value
    texts = ",".join(in_quotes(_unquoted(v.strip())) for v in _pieces(inner) if v.strip())
    return UserError(
        word,
        "each text between quotes where one has a quote, a bracket or a backslash; brackets closed",
        f"write {shlex.quote(f'{key}=[{texts}]' if is_list else f'{key}={texts}')}",
    )
