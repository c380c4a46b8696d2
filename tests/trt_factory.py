"""What the TensorRT tests share: a bundle, a device, and a fake that child processes see, too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from bundle_factory import build_bundle
from fake_tensorrt.fake import FakeTensorRT

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.engines.trt_build_process import BuildResult
from edge_runtime.engines.trt_builder import build_engine
from edge_runtime.engines.trt_device import DeviceIdentity
from edge_runtime.engines.trt_recipe import EngineRecipe

ORIN = DeviceIdentity(name="Orin", compute_capability="8.7", integrated=True)


def verified_bundle(folder: Path, **changes: Any) -> Bundle:
    """A tiny signed bundle, read and verified."""
    built = build_bundle(folder, **changes)
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


@contextmanager
def installed(fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorRT]:
    """The fake as `tensorrt` of this process and of its children, as it is set up by now."""
    with fake.installed(), monkeypatch.context() as patch:
        for name, value in fake.environment().items():
            patch.setenv(name, value)
        yield fake


def build_here(
    recipe: EngineRecipe,
    onnx: bytes,
    *,
    work_dir: Path,
    workspace_bytes: int,
    timing_cache: bytes,
    progress: Any,
) -> BuildResult:
    """`run_build` in this process: for tests of what lies around it, where a child is too slow."""
    assert list(work_dir.iterdir()) == []
    built = build_engine(
        sys.modules["tensorrt"],
        recipe,
        onnx,
        workspace_bytes=workspace_bytes,
        timing_cache=timing_cache,
        report=lambda _event: True,
    )
    progress("built here")
    return BuildResult(
        plan=built.plan,
        timing_cache=built.timing_cache,
        tensors=built.tensors,
        build_s=0.1,
        log=(),
        num_log_lines_dropped=0,
    )
