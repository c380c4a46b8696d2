"""What is handed in: the pictures of one examination, with the eyes that were expected."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.errors import ConfigError

__all__ = ["EYES", "MAX_FIELDS", "Examination", "EyeImage", "ImageSource"]

EYES = ("OD", "OS", "unspecified")
MAX_FIELDS = 2
ImageSource = bytes | Path | None


@dataclass(frozen=True, kw_only=True)
class EyeImage:
    """One picture of one eye; a second one of the same eye is its second field.

    Attributes:
        eye: "OD" (right), "OS" (left) or "unspecified".
        source: Bytes of the file as the camera wrote it, or its path; None says that a picture
            was expected and is missing. Left out of `repr`, so that no log shows it.
        expected_sha256: Hash that the camera took of the file, if it takes one: 64 hex digits,
            kept in lower case. Content that differs makes the eye ungradable.
    """

    eye: str = "unspecified"
    source: ImageSource = field(repr=False)
    expected_sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown eye, a source of another type, a malformed hash."""
        if self.eye not in EYES:
            raise ConfigError(f"eye is {self.eye!r}; use one of {', '.join(EYES)}")
        if not isinstance(self.source, bytes | Path | None):
            raise TypeError(_wrong_type_text(self.source))
        if self.expected_sha256 is not None:
            if not re.fullmatch("[0-9a-fA-F]{64}", self.expected_sha256):
                raise ConfigError(
                    f"expected_sha256 is {self.expected_sha256!r}; give 64 hex digits"
                )
            object.__setattr__(self, "expected_sha256", self.expected_sha256.lower())


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The pictures of one patient that are decided together. Every picture listed is expected.

    Attributes:
        images: One or two pictures an eye. Which two fields they are (macula and disc, say) is
            for the protocol of the bundle; the order is kept in the result.
        examination_id: Copied into the result.
    """

    images: tuple[EyeImage, ...]
    examination_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse an id that is no text, no picture, a third one of an eye, mixed eyes."""
        if not isinstance(self.examination_id, str | None):
            raise TypeError(
                f"examination_id is {type(self.examination_id).__name__}, not str or None"
            )
        names = [image.eye for image in self.images]
        if not names:
            raise ConfigError("the examination lists no eye; give at least one EyeImage")
        crowded = sorted({name for name in names if names.count(name) > MAX_FIELDS})
        if crowded:
            raise ConfigError(
                f"the examination lists more than {MAX_FIELDS} pictures of {', '.join(crowded)}; "
                "give one or two fields an eye"
            )
        if len(set(names)) > 1 and "unspecified" in names:
            raise ConfigError(f"the examination mixes eyes {names}; name every eye OD or OS")

    @property
    def by_eye(self) -> Mapping[str, tuple[EyeImage, ...]]:
        """The pictures of each eye, both in the order given."""
        eyes = dict.fromkeys(image.eye for image in self.images)
        return {eye: tuple(one for one in self.images if one.eye == eye) for eye in eyes}

    @classmethod
    def single(
        cls,
        source: ImageSource | Sequence[ImageSource],
        *,
        eye: str = "unspecified",
        expected_sha256: str | None = None,
        examination_id: str | None = None,
    ) -> Examination:
        """Return an examination that expects one eye: one picture, or a sequence of its fields.

        Raises:
            ConfigError: `expected_sha256` for several fields; give an `EyeImage` for each.
        """
        sources = _fields(source)
        if expected_sha256 is not None and len(sources) != 1:
            raise ConfigError("expected_sha256 belongs to one picture; give an EyeImage for each")
        images = tuple(
            EyeImage(eye=eye, source=one, expected_sha256=expected_sha256) for one in sources
        )
        return cls(images=images, examination_id=examination_id)

    @classmethod
    def both(
        cls,
        *,
        od: ImageSource | Sequence[ImageSource],
        os: ImageSource | Sequence[ImageSource],
        examination_id: str | None = None,
    ) -> Examination:
        """Return an examination that expects both eyes; None is a missing picture.

        Each eye is one picture, or a sequence of its fields.
        """
        images = [EyeImage(eye="OD", source=one) for one in _fields(od)]
        images += [EyeImage(eye="OS", source=one) for one in _fields(os)]
        return cls(images=tuple(images), examination_id=examination_id)


def _wrong_type_text(source: object) -> str:
    remedy = "wrap it in Path(...)" if isinstance(source, str) else "give one of these"
    return f"source is {type(source).__name__}, not bytes, Path or None; {remedy}"


def _fields(source: ImageSource | Sequence[ImageSource]) -> tuple[ImageSource, ...]:
    """Return the fields of an eye; an empty sequence is one missing picture."""
    if isinstance(source, list | tuple):
        return tuple(source) or (None,)
    return (source,)  # type: ignore[return-value]  # bytes are a sequence, too
