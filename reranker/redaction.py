"""Remove secrets from text before it is printed, logged or stored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

_SECRETS = (
    re.compile(
        r"(?<=://)[^/\s'\"]+(?=@)"
    ),  # user:password@host, up to the last @: one in a password stands there raw
    re.compile(
        r"(?<=[?&])(?P<key>\w*(?:password|passwd|token|secret|api_key))=[^&\s'\"]+", re.IGNORECASE
    ),
)


def redact(text: str) -> str:
    """The text with `***` for the userinfo of every URI and for passwords and tokens among its parameters."""
    userinfo, parameter = _SECRETS
    return parameter.sub(r"\g<key>=***", userinfo.sub("***", text))
