"""Rules of single values in bundle.json, each a check that names the field it refuses."""

from __future__ import annotations

import re

from edge_runtime.errors import ConfigError

__all__ = [
    "require",
    "require_count",
    "require_interval",
    "require_name",
    "require_sha256",
    "require_share",
    "require_text",
    "require_unique",
]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def require(condition: bool, name: str, value: object, rule: str) -> None:
    """Raise ConfigError '<name> is <value>; it must be <rule>' unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{name} is {value!r}; it must be {rule}")


def require_share(name: str, value: float, *, low: float = 0.0) -> None:
    """Refuse a number outside low..1; NaN is outside."""
    require(low <= value <= 1.0, name, value, f"in {low:g}..1")


def require_interval(name: str, value: tuple[float, float], *, low: float = 0.0) -> None:
    """Refuse an interval that is not ordered or leaves low..1."""
    ordered = low <= value[0] <= value[1] <= 1.0
    require(ordered, name, value, f"[low, high] with {low:g} <= low <= high <= 1")


def require_text(name: str, value: str) -> None:
    """Refuse empty, padded, very long or unprintable text."""
    fits = len(value) <= 200 and value != "" and value.isprintable()
    require(fits and value.strip() == value, name, value, "1 to 200 printable characters")


def require_name(name: str, value: str) -> None:
    """Refuse a label name that is not one ASCII word."""
    require(_NAME.fullmatch(value) is not None, name, value, "a word of A-Z a-z 0-9 _")


def require_sha256(name: str, value: str) -> None:
    """Refuse what is not a SHA-256 in lower-case hexadecimal."""
    require(_SHA256.fullmatch(value) is not None, name, value, "64 hex digits (SHA-256)")


def require_count(name: str, value: int) -> None:
    """Refuse a count below one."""
    require(value >= 1, name, value, "at least 1")


def require_unique(name: str, values: tuple[str, ...]) -> None:
    """Refuse a list in which a value appears twice."""
    require(len(set(values)) == len(values), name, values, "free of duplicates")
