"""A signed bundle under which every picture that can be read is `no_refer`, for the fault tests.

No probability reaches 1 and every one reaches 0, and the quality limits let everything through:
only decoding and the search for the field of view are left between a damaged file and `no_refer`.
A file that slips through them shows; with ordinary operating points most would hide behind
`refer` or a quality reason.
"""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path

from bundle_factory import BuiltBundle, build_bundle

from edge_runtime.fundus.quality import QualityLimits
from edge_runtime.screener import Screener

__all__ = ["build_permissive", "open_screener"]

_NO_LIMIT = 1e6


def build_permissive(folder: Path) -> BuiltBundle:
    """Build the bundle in `folder`."""
    built = build_bundle(folder, threshold=1.0, gradability_threshold=0.0)
    limits = QualityLimits(
        **{f.name: 0.0 if f.name.startswith("min_") else _NO_LIMIT for f in fields(QualityLimits)}
    )
    built.write_and_sign(replace(built.manifest, quality_limits=limits.to_dict()))
    return built


def open_screener() -> Screener:
    """Open such a bundle, built in a folder that is gone again: a bundle is read once."""
    with tempfile.TemporaryDirectory() as folder:
        built = build_permissive(Path(folder) / "bundle")
        return Screener.open(built.folder, trusted_keys=built.trusted_keys, engine="onnxruntime")
