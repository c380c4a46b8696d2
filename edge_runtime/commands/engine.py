"""What `edge-screen engine build`, `list` and `clear` do; `engine_cli` declares them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edge_runtime.bundle import read_bundle
from edge_runtime.commands.engine_text import built_text, cleared_text, list_text, planned_text
from edge_runtime.engines.trt_cache import cache_root
from edge_runtime.engines.trt_dry_run import plan_engine
from edge_runtime.engines.trt_inventory import clear_engines, list_engines
from edge_runtime.engines.trt_plan import ensure_plan
from edge_runtime.errors import EngineError
from edge_runtime.reports.result_words import printable
from edge_runtime.result import NOTICE
from edge_runtime.safe_files import read_file
from edge_runtime.signing import MAX_MANIFEST_BYTES
from edge_runtime.strict_json import dataclass_to_dict

__all__ = ["BuildRequest", "run_build", "run_clear", "run_list"]

_NO_DLA = (
    "engines for the DLA are not built: Orin Nano has none, TensorRT 11.0 to 11.3 have none, and "
    "TensorRT 8 and 10 quantise for it only with the implicit INT8 calibration that this program "
    "does not use; build for the GPU"
)


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What the operator asked `edge-screen engine build` for; None means the default."""

    bundle_dir: Path
    precision: str
    cache_dir: Path | None
    core: str
    dry_run: bool
    for_version: str | None
    rebuild: bool
    trusted_keys: Path | None


def run_build(request: BuildRequest, *, as_json: bool) -> None:
    """Build, or with `dry_run` print what would be built."""
    if request.core == "dla":
        raise EngineError(_NO_DLA)
    bundle = read_bundle(request.bundle_dir, trusted_keys=request.trusted_keys)
    if request.dry_run:
        planned = plan_engine(
            bundle,
            bundle_dir=request.bundle_dir,
            precision=request.precision,
            cache_dir=cache_root(request.cache_dir),
            version=request.for_version,
        )
        value = {"dry_run": True, **dataclass_to_dict(planned)}
        _echo(value, planned_text(planned), as_json=as_json)
        return
    loaded = ensure_plan(
        bundle,
        cache_dir=cache_root(request.cache_dir),
        precision=request.precision,
        rebuild=request.rebuild,
        progress=lambda line: click.echo(printable(line), err=True),
    )
    value = {
        "dry_run": False,
        "was_built": loaded.was_built,
        "path": str(loaded.path),
        "key": loaded.key,
        "num_bytes": len(loaded.plan),
        "recipe": loaded.recipe.to_dict(),
        "device": dataclass_to_dict(loaded.device),
        "tensors": [dataclass_to_dict(one) for one in loaded.tensors],
        "messages": list(loaded.messages),
    }
    _echo(value, built_text(loaded), as_json=as_json)


def run_list(cache_dir: Path | None, *, as_json: bool) -> None:
    """Print every engine of the cache, with the reason where one would not be used."""
    root = cache_root(cache_dir)
    engines = list_engines(root)
    rows = [{**dataclass_to_dict(one), "path": str(one.path)} for one in engines]
    for row in rows:
        if row["sidecar"] is not None:
            del row["sidecar"]["log"]  # hundreds of lines; they are in the file
    _echo({"cache_dir": str(root), "engines": rows}, list_text(root, engines), as_json=as_json)


def run_clear(bundle_dir: Path | None, cache_dir: Path | None, *, as_json: bool) -> None:
    """Remove the engines of one bundle, or everything when `bundle_dir` is None."""
    root = cache_root(cache_dir)
    digest = None
    if bundle_dir is not None:  # not verified: removing needs no trust in it
        raw = read_file(bundle_dir / "bundle.json", max_bytes=MAX_MANIFEST_BYTES)
        digest = hashlib.sha256(raw).hexdigest()
    cleared = clear_engines(root, bundle_sha256=digest)
    value = {"cache_dir": str(root), **dataclass_to_dict(cleared)}
    _echo(value, cleared_text(root, cleared), as_json=as_json)


def _echo(value: dict[str, Any], text: str, *, as_json: bool) -> None:
    if as_json:
        value = {**value, "notice": NOTICE}
        click.echo(json.dumps(value, allow_nan=False, separators=(",", ":")))
    else:
        click.echo(f"{text}\n{NOTICE}")
