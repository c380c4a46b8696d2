"""Labels of a visit from the labels of its images: kept where they agree, unknown otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from edge_runtime.errors import ConfigError
from train.data.index import FILE_COLUMNS
from train.data.table import Problem, Row
from train.data.values import parse_label
from train.pairing.raw import RawImage

__all__ = ["is_label_value", "join_labels", "require_label_names"]

_TAKEN = ("patient_id", "eye", "acquired", "site", "split", *FILE_COLUMNS)
_RAW = ("modality", "scan_kind", "path")


def require_label_names(names: Sequence[str]) -> None:
    """Refuse names that index.csv uses for something else.

    Raises:
        ConfigError: A name is taken, repeated or empty.
    """
    for name in names:
        if name in (*_TAKEN, *_RAW):
            raise ConfigError(f"'{name}' is a column of its own, not a label; rename the label")
        if not name or name != name.strip() or names.count(name) > 1:
            raise ConfigError(f"label '{name}' is empty, repeated or has spaces around it")


def is_label_value(name: str, text: str) -> bool:
    """Whether index.csv accepts `text` in the label column `name`."""
    problems: list[Problem] = []
    parse_label(Row(number=0, cells={name: text}), name, problems)
    return not problems


def join_labels(
    images: Sequence[RawImage], names: Sequence[str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """The labels of a visit.

    Args:
        images: Of the visit; an empty cell has no say.
        names: The labels of the index.

    Returns:
        Label -> text, "" where no image knows it or two disagree; and the labels that
        disagree. 1 and 1.0 are the same.
    """
    joined, conflicts = {}, []
    for name in names:
        texts = [text for image in images if (text := image.labels.get(name, ""))]
        agree = len({float(text) for text in texts}) <= 1
        joined[name] = texts[0] if texts and agree else ""
        if not agree:
            conflicts.append(name)
    return joined, tuple(conflicts)
