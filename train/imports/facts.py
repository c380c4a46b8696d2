"""What is said of a published set before anything is copied: source, terms, mapping."""

from __future__ import annotations

from dataclasses import dataclass

from edge_runtime.errors import ConfigError

__all__ = ["CHECKED", "SetFacts"]

CHECKED = {
    "real": "real files in the published layout",
    "reduced": "a reduced copy of the real files; the published layout from its description",
    "description": "the publisher's description and a made tree, no real files",
}


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """Facts of a set; nothing here is followed or downloaded.

    Attributes:
        name: what the command calls it.
        title: what its authors call it.
        home: where it is published, in words.
        citation: what its authors ask to cite.
        terms: who may do what, in short; the publisher's own text decides.
        mapping: (what the set says, label or mask it becomes).
        patients: how patient and eye are known.
        split: whose split it is.
        checked: a key of `CHECKED`.
    """

    name: str
    title: str
    home: str
    citation: str
    terms: str
    mapping: tuple[tuple[str, str], ...]
    patients: str
    split: str
    checked: str

    def __post_init__(self) -> None:
        """Refuse an unknown way of checking."""
        if self.checked not in CHECKED:
            raise ConfigError(f"checked is {self.checked!r}; use one of {', '.join(CHECKED)}")

    def notice(self) -> str:
        """The terms, as printed before the import."""
        return (
            f"{self.title}\n  published: {self.home}\n  cite: {self.citation}\n"
            f"  terms: {self.terms}\n"
            "  This is a short version: the publisher's own text decides.\n"
            "  A model trained on these images may need a licence of its own."
        )
