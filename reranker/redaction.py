"""Remove secrets from text before it is printed, logged or stored."""

from __future__ import annotations

import re

# user:password@host, up to the last @, because a password may contain one.
_USERINFO = re.compile(r"(?<=://)[^/\s'\"]+(?=@)")
_PARAMETER = re.compile(
    r"(?<=[?&])(?P<key>\w*(?:password|passwd|token|secret|api_key))=[^&\s'\"]+", re.IGNORECASE
)


def redact(text: str) -> str:
    """Return the text with `***` in place of userinfo, passwords and tokens in URIs.

    Example:
        redact("postgresql://me:secret@host/runs")  # "postgresql://***@host/runs"
    """
    return _PARAMETER.sub(r"\g<key>=***", _USERINFO.sub("***", text))
