"""Rows that can never be in a triple: wrong kind, missing, repeated or contradicting others.

Independent of the order of rows. Files are read once for their SHA-256 and not decoded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

from train.pairing.match import slot_of
from train.pairing.raw import RawImage
from train.pairing.reasons import Reason, Refusal, Rejection
from train.pairing.settings import PairSettings

__all__ = ["reject", "screen_images"]

Screened = tuple[list[RawImage], list[Rejection]]
_Key = TypeVar("_Key", bound=Hashable)


def screen_images(
    images: Sequence[RawImage],
    settings: PairSettings,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Screened:
    """Sort out what no triple may hold.

    Args:
        images: Every understood row.
        settings: Which CFP fields are wanted.
        progress: Called with (files hashed, files in all).

    Returns:
        The images that may be paired, and the rejections of the others.
    """
    kept, rejections = _one_row_a_file(images)
    for step in (
        lambda rest: _wanted(rest, settings),
        lambda rest: _one_file_a_picture(rest, progress),
        _one_site_a_day,
    ):
        kept, more = step(kept)
        rejections += more
    return kept, rejections


def reject(image: RawImage, reason: Reason, *, column: str = "", detail: str = "") -> Rejection:
    """A rejection of an understood row."""
    return Rejection(
        row=image.row, reason=reason, column=column, detail=detail, known=image.known()
    )


def _one_row_a_file(images: Iterable[RawImage]) -> Screened:
    """A file listed twice: once is kept where the rows are equal, none where they are not."""
    kept, rejections = [], []
    for same in _grouped(images, lambda image: image.source.name).values():
        first, *others = sorted(same, key=lambda image: image.row)
        if any(_content(other) != _content(first) for other in others):
            rejections += [reject(image, Reason.CONFLICTING_ROWS, column="path") for image in same]
            continue
        kept.append(first)
        rejections += [reject(image, Reason.DUPLICATE_ROW, column="path") for image in others]
    return kept, rejections


def _content(image: RawImage) -> tuple[object, ...]:
    return (image.known(), dict(image.labels), image.split)


def _wanted(images: Iterable[RawImage], settings: PairSettings) -> Screened:
    kept, rejections = [], []
    for image in images:
        allowed = settings.cfp_fields if image.modality == "cfp" else ("macula_h", "macula_v")
        if image.scan_kind in allowed:
            kept.append(image)
        else:
            rejections.append(reject(image, Reason.UNWANTED_SCAN_KIND, column="scan_kind"))
    return kept, rejections


def _one_file_a_picture(
    images: Sequence[RawImage], progress: Callable[[int, int], None] | None
) -> Screened:
    """Equal content: an export repeated within a visit is kept once, a wrong copy not at all."""
    rejections: list[Rejection] = []
    digests: dict[int, str] = {}
    for done, image in enumerate(images, start=1):
        digest = image.source.digest()
        if isinstance(digest, Refusal):
            rejections.append(reject(image, digest.reason, column="path", detail=digest.detail))
        else:
            digests[image.row] = digest
        if progress is not None:
            progress(done, len(images))
    kept = []
    found = [image for image in images if image.row in digests]
    for same in _grouped(found, lambda image: digests[image.row]).values():
        first, *others = sorted(same, key=lambda image: image.order)
        if any((one.visit, slot_of(one)) != (first.visit, slot_of(first)) for one in others):
            rejections += [reject(one, Reason.CONFLICTING_IMAGES, column="path") for one in same]
            continue
        kept.append(first)
        rejections += [reject(one, Reason.DUPLICATE_IMAGE, column="path") for one in others]
    return kept, rejections


def _one_site_a_day(images: Iterable[RawImage]) -> Screened:
    """One patient at two places on one day is more likely two patients with one number."""
    kept, rejections = [], []
    for same in _grouped(images, lambda image: (image.patient_id, image.visit[2])).values():
        if len({image.site for image in same}) == 1:
            kept += same
        else:
            rejections += [reject(one, Reason.CONFLICTING_SITES, column="site") for one in same]
    return kept, rejections


def _grouped(
    images: Iterable[RawImage], key: Callable[[RawImage], _Key]
) -> dict[_Key, list[RawImage]]:
    groups: dict[_Key, list[RawImage]] = defaultdict(list)
    for image in images:
        groups[key(image)].append(image)
    return groups
