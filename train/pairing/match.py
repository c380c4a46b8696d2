"""Choosing the triple of one visit: nearest in time, ties broken by a total order.

Pure: no files. The choice depends on the set of images, never on the order of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from train.pairing.raw import RawImage
from train.pairing.reasons import Reason

__all__ = ["MISSING_REASON", "Triple", "choose_triple", "slot_of"]

MISSING_REASON = {
    "cfp": Reason.NO_CFP,
    "oct_h": Reason.NO_OCT_H,
    "oct_v": Reason.NO_OCT_V,
}
_MAY_LACK = {"none": (), "oct_v": ("oct_v",), "oct": ("oct_h", "oct_v")}


@dataclass(frozen=True, kw_only=True)
class Triple:
    """The images of one visit: a CFP and its scans."""

    cfp: RawImage
    oct_h: RawImage | None
    oct_v: RawImage | None

    @property
    def images(self) -> tuple[RawImage, ...]:
        """The images that are there: CFP, horizontal, vertical."""
        return tuple(one for one in (self.cfp, self.oct_h, self.oct_v) if one is not None)

    @property
    def gap_us(self) -> int:
        """Microseconds from the CFP to each scan, summed."""
        here = self.cfp.acquired.instant_us
        return sum(abs(one.acquired.instant_us - here) for one in self.images[1:])


def slot_of(image: RawImage) -> str:
    """The column of index.csv that an image belongs in."""
    if image.modality == "cfp":
        return "cfp"
    return {"macula_h": "oct_h", "macula_v": "oct_v"}[image.scan_kind]


def choose_triple(images: Sequence[RawImage], *, allow_missing: str) -> Triple | str:
    """The one triple of a visit.

    Of all CFPs the one whose nearest scans are nearest in sum; of equal ones the first in
    `RawImage.order`, and likewise for each scan. A scan that is there is never left out for
    a shorter sum.

    Args:
        images: Of one patient, one eye, one day; each fits a slot.
        allow_missing: As `PairSettings.allow_missing`.

    Returns:
        The triple, or the first slot that is empty and may not be.
    """
    slots: dict[str, list[RawImage]] = {"cfp": [], "oct_h": [], "oct_v": []}
    for image in images:
        slots[slot_of(image)].append(image)
    for name, found in slots.items():
        if not found and name not in _MAY_LACK[allow_missing]:
            return name
    triples = (
        Triple(cfp=cfp, oct_h=_nearest(cfp, slots["oct_h"]), oct_v=_nearest(cfp, slots["oct_v"]))
        for cfp in slots["cfp"]
    )
    return min(triples, key=lambda triple: (triple.gap_us, triple.cfp.order))


def _nearest(cfp: RawImage, scans: Iterable[RawImage]) -> RawImage | None:
    here = cfp.acquired.instant_us
    return min(
        scans,
        key=lambda scan: (abs(scan.acquired.instant_us - here), scan.order),
        default=None,
    )
