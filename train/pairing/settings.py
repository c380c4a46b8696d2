"""What a user may choose when pairing; saved whole in pairing.json."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from edge_runtime.errors import ConfigError

__all__ = ["ALLOW_MISSING", "PairSettings"]

ALLOW_MISSING = ("none", "oct_v", "oct")
_MIN_OCT_PX, _MAX_OCT_PX = 16, 4096


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """The rules of one pairing run.

    Attributes:
        allow_missing: What a visit may lack: "none", "oct_v" (the second scan), or "oct"
            (either scan or both). A CFP is never optional.
        cfp_fields: `scan_kind` of the CFPs that may be paired; "" is 'not stated'.
        shares: Of the patients in train, val and test; they sum to 1.
        salt: Text that is hashed with the patient id to draw the split.
        oct_size_px: (rows, columns) that every B-scan is resampled to; None keeps each scan's
            own size, and then both scans of a visit must agree.
        allow_grey_cfp: Accept a 'CFP' without colour (near infrared, red-free).
    """

    allow_missing: str = "none"
    cfp_fields: tuple[str, ...] = ("macula", "")
    shares: tuple[float, float, float] = (0.7, 0.1, 0.2)
    salt: str = "edge-screen pairing"
    oct_size_px: tuple[int, int] | None = None
    allow_grey_cfp: bool = False

    def __post_init__(self) -> None:
        """Refuse what would pair nothing or split unevenly.

        Raises:
            ConfigError: A setting is out of its range.
        """
        if self.allow_missing not in ALLOW_MISSING:
            raise ConfigError(
                f"allow_missing is '{self.allow_missing}'; use {', '.join(ALLOW_MISSING)}"
            )
        if not self.cfp_fields:
            raise ConfigError("cfp_fields is empty; name at least one, for example macula")
        if not (
            all(0 <= share <= 1 for share in self.shares)
            and math.isclose(sum(self.shares), 1.0, abs_tol=1e-9)
        ):
            raise ConfigError(
                f"shares are {self.shares}; give three from 0 to 1 (train, val, test) that sum to 1"
            )
        if self.oct_size_px is not None and not all(
            _MIN_OCT_PX <= side <= _MAX_OCT_PX for side in self.oct_size_px
        ):
            raise ConfigError(
                f"oct_size_px is {self.oct_size_px}; give {_MIN_OCT_PX} to {_MAX_OCT_PX} a side"
            )

    def to_dict(self) -> dict[str, object]:
        """Every setting as JSON types."""
        return asdict(self)
