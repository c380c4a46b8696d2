"""What one picture may cost a decoding child."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.errors import ConfigError

__all__ = ["IsolationLimits"]


@dataclass(frozen=True, kw_only=True)
class IsolationLimits:
    """Limits of the children and of their number.

    Attributes:
        memory_mb: millions of bytes that a child may take beyond what it has when it is started:
            the file, its decoded image and everything on the way.
        timeout_s: seconds, by the clock and of CPU time, until a child is killed.
        start_timeout_s: seconds within which a child must be ready.
        max_children: most children at the same time; further callers wait.
    """

    memory_mb: int = 600
    timeout_s: float = 10.0
    start_timeout_s: float = 60.0
    max_children: int = 4

    def __post_init__(self) -> None:
        """Check every range.

        Raises:
            ConfigError: A limit is no number, or lets nothing or everything through.
        """
        for name in ("memory_mb", "max_children"):
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 1_000_000:
                raise ConfigError(f"{name} is {value!r}; it must be a whole number from 1")
        for name in ("timeout_s", "start_timeout_s"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value <= 3600:
                raise ConfigError(f"{name} is {value!r}; it must be above 0, up to 3600")
