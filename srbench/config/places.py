"""Where a user typed what a resolved setting says: a method's parameters, named in its path by `${…}`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from srbench.errors import UserError

_WHOLE = re.compile(r"\$\{(\.*)([A-Za-z_][\w.]*)\}")  # nothing but one interpolation


def typed(unresolved: Any) -> dict[str, str]:
    """The dotted places of settings that are parameters → the places of those parameters.

    unresolved: a configuration as plain data, its interpolations as they stand.

    >>> until = {"kind": "srdiffusion", "delta": "${....delta}"}
    >>> typed({"method": {"srd": {"delta": 0.01, "path": [{"model": "large", "until": until}]}}})
    {'method.srd.path.0.until.delta': 'method.srd.delta'}
    """
    found = {}
    for place, value in _leaves(unresolved, ()):
        if (match := _WHOLE.fullmatch(value)) is None:
            continue
        dots, name = match.groups()
        # one dot is the mapping or list that the setting is in, each further one the next above
        above = place[: len(place) - len(dots)] if dots else ()
        found[".".join(place)] = ".".join([*above, name])
    return found


def _leaves(value: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*place, str(key)))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _leaves(inner, (*place, str(i)))


def as_typed(mistake: UserError, places: Mapping[str, str]) -> UserError:
    """The mistake with each place told as the one that was typed.

    >>> places = {"method.srd.path.0.until.delta": "method.srd.delta"}
    >>> as_typed(UserError("method.srd.path.0.until.delta = -1", "a number above 0", "…"), places).got
    'method.srd.delta = -1'
    """
    if not places or type(mistake) is not UserError:  # others have more to say
        return mistake
    longest = sorted(places, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, longest))})(?![\w.]|\.\w)")

    def told(text: str) -> str:
        return pattern.sub(lambda match: places[match[0]], text)

    return UserError(told(mistake.got), told(mistake.expected), told(mistake.otherwise), mistake.command)
