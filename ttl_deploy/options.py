"""Options behind a name: `tiny?kernel=7&widths=32-64` for a backbone, `l2-sp?alpha=0.01` for a strategy."""

from collections.abc import Mapping
from urllib.parse import parse_qsl

from ttl_deploy.errors import UsageError


def split_options(text: str, allowed: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the name before `?` and the options behind it; `allowed` says for each what it may be.

    Raises `UsageError` for an option that is not known, is given twice, or has no value.
    """
    name, mark, query = text.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    known = ", ".join(f"{option}={values}" for option, values in allowed.items())
    if mark and not given:
        raise UsageError(f"{text!r} ends in options that cannot be read: give {known}, joined by &")
    for option, value in pairs:
        if option not in allowed or not value:
            raise UsageError(f"{text!r}: cannot use {option}={value!r}; options are {known}")
    if len(pairs) > len(given):
        raise UsageError(f"{text!r} gives an option twice")
    return name, given
