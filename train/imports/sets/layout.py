"""A published layout: its facts, and the function that reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from train.imports.facts import SetFacts
from train.imports.records import Reading, ReadOptions

__all__ = ["SetLayout"]


@dataclass(frozen=True, kw_only=True)
class SetLayout:
    """One set that can be imported."""

    facts: SetFacts
    read: Callable[[Path, ReadOptions], Reading]
