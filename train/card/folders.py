"""Folders of pictures screened end to end: who is refused and why, and how long it takes.

For pictures that must be refused (another modality) and for camera originals. The whole path of
the camera runs: reading, gate, INT8 graph, decision.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_runtime.metrics import Interval, clopper_pearson_interval
from edge_runtime.result import Decision, ScreeningResult
from edge_runtime.screener import Screener
from edge_runtime.screening.inputs import plan_images

__all__ = ["FolderReport", "screen_folder"]


@dataclass(frozen=True, kw_only=True)
class FolderReport:
    """What became of the pictures of a folder.

    Attributes:
        name: as given.
        must_refuse: every picture ought to be refused.
        model: the bundle that screened.
        num_pictures: in the folder.
        num_refused: ungradable.
        share: refused, with its exact interval (Clopper-Pearson).
        dispositions: how often each was given.
        reasons: why pictures were refused; one may have several.
        median_ms: of one picture from bytes to decision, one thread.
        max_ms: the slowest.
    """

    name: str
    must_refuse: bool
    model: str
    num_pictures: int
    num_refused: int
    share: Interval
    dispositions: Mapping[str, int]
    reasons: Mapping[str, int]
    median_ms: float
    max_ms: float


def screen_folder(
    folder: Path, bundle_dir: Path, *, must_refuse: bool, trusted_keys: Path | None
) -> FolderReport:
    """Screen every picture of a folder with the INT8 graph of a calibrated, signed bundle.

    Raises:
        BundleError: the bundle cannot be trusted or used.
        ConfigError: the folder holds no picture.
    """
    plan = plan_images([folder], recursive=True)
    paths = [
        picture.path
        for one in plan.examinations
        for eye in one.eyes
        for picture in eye.pictures
        if picture.path is not None
    ]
    with Screener.open(
        bundle_dir, trusted_keys=trusted_keys, engine="onnxruntime", allow_unproven_int8=True
    ) as screener:
        manifest = screener.bundle.manifest
        results = [screener.screen(path) for path in paths]
    refused = [one for one in results if one.disposition is Decision.UNGRADABLE]
    times = [sum(field.timings_ms["total"] for field in one.eyes[0].fields) for one in results]
    return FolderReport(
        name=folder.name,
        must_refuse=must_refuse,
        model=f"{manifest.name} {manifest.version}, INT8",
        num_pictures=len(results),
        num_refused=len(refused),
        share=clopper_pearson_interval(len(refused), len(results)),
        dispositions=dict(Counter(one.disposition.value for one in results)),
        reasons=_reasons(refused),
        median_ms=float(np.median(times)),
        max_ms=float(np.max(times)),
    )


def _reasons(refused: list[ScreeningResult]) -> dict[str, int]:
    return dict(Counter(text for one in refused for text in one.eyes[0].reasons).most_common())
