"""What `Screener.open` decides before there is a screener: which models stay, and who decodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_runtime.bundle import Bundle
from edge_runtime.engines import PRECISIONS, has_tensorrt
from edge_runtime.engines.ort_providers import find_provider
from edge_runtime.loading import InProcessLoader, LoadSettings, PictureLoader

if TYPE_CHECKING:
    from edge_runtime.isolation import IsolationLimits

__all__ = ["load_settings", "needed_models", "open_loader"]


def needed_models(engine: str, precision: str, provider: str) -> tuple[str, ...] | None:
    """Return the precisions whose model bytes must stay in memory until the engine is open.

    None stands for all of them, as TensorRT may want any.
    """
    on_ort = engine == "onnxruntime" or (engine == "auto" and not has_tensorrt())
    if not on_ort or precision not in PRECISIONS:
        return None
    return (find_provider(provider).bundle_precision(precision),)


def load_settings(bundle: Bundle) -> LoadSettings:
    """Return what the bundle says about making its model's input."""
    manifest = bundle.manifest
    return LoadSettings(
        spec=manifest.preprocess_spec(), quality=manifest.quality(), protocol=manifest.protocol
    )


def open_loader(bundle: Bundle, isolation: IsolationLimits | None) -> PictureLoader:
    """Return the loader that was asked for; never another one.

    Raises:
        EngineError: A decoding child was asked for and cannot be started.
    """
    settings = load_settings(bundle)
    if isolation is None:
        return InProcessLoader(settings)
    from edge_runtime.isolation import IsolatedLoader

    return IsolatedLoader(settings, isolation)
