"""What is handed in: the pictures of one examination, with the eyes that were expected."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from edge_runtime.errors import ConfigError

__all__ = ["EYES", "Examination", "EyeImage", "ImageSource"]

EYES = ("OD", "OS", "unspecified")
ImageSource = bytes | Path | None


@dataclass(frozen=True, kw_only=True)
class EyeImage:
    """One picture of one eye.

    Attributes:
        eye: "OD" (right), "OS" (left) or "unspecified".
        source: Bytes of the file as the camera wrote it, or its path; None says that a picture
            was expected and is missing. Left out of `repr`, so that no log shows it.
        expected_sha256: Hash that the camera took of the file, if it takes one. Content that
            differs makes the eye ungradable.
    """

    eye: str = "unspecified"
    source: ImageSource = field(repr=False)
    expected_sha256: str | None = None

    def __post_init__(self) -> None:
        """Refuse an unknown eye, a source of another type, a malformed hash."""
        if self.eye not in EYES:
            raise ConfigError(f"eye is {self.eye!r}; use one of {', '.join(EYES)}")
        if not isinstance(self.source, bytes | Path | None):
            raise TypeError(f"source is {type(self.source).__name__}, not bytes, Path or None")
        if self.expected_sha256 is not None and not re.fullmatch(
            "[0-9a-f]{64}", self.expected_sha256
        ):
            raise ConfigError(
                f"expected_sha256 is {self.expected_sha256!r}; give 64 lower-case hex digits"
            )


@dataclass(frozen=True, kw_only=True)
class Examination:
    """The eyes of one patient that are decided together. Every eye listed is expected."""

    eyes: tuple[EyeImage, ...]
    examination_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse no eye, one eye twice, and an unspecified eye beside another."""
        names = [eye.eye for eye in self.eyes]
        if not names:
            raise ConfigError("the examination lists no eye; give at least one EyeImage")
        if len(set(names)) != len(names):
            raise ConfigError(f"the examination lists an eye twice: {names}; give one image an eye")
        if len(names) > 1 and "unspecified" in names:
            raise ConfigError(f"the examination mixes eyes {names}; name every eye OD or OS")

    @classmethod
    def single(
        cls,
        source: ImageSource,
        *,
        eye: str = "unspecified",
        expected_sha256: str | None = None,
        examination_id: str | None = None,
    ) -> Examination:
        """Return an examination that expects one eye."""
        image = EyeImage(eye=eye, source=source, expected_sha256=expected_sha256)
        return cls(eyes=(image,), examination_id=examination_id)

    @classmethod
    def both(
        cls, *, od: ImageSource, os: ImageSource, examination_id: str | None = None
    ) -> Examination:
        """Return an examination that expects both eyes; None is a missing picture."""
        eyes = (EyeImage(eye="OD", source=od), EyeImage(eye="OS", source=os))
        return cls(eyes=eyes, examination_id=examination_id)
