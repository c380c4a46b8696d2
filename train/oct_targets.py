"""What the OCT routes predict: B-scans with their nuisance removed.

Predicting raw B-scans fails: brightness, position, tilt and speckle dominate the error.
So scans are flattened to Bruch's membrane (found from the image alone), reduced to
about 32 x 32 and z-scored one by one. Their leading principal components, whitened, get
a second loss of their own, because in pixels a few large, uninformative ones drown the
rest. `OCT_TARGETS` has the plainer forms beside it, for comparison.

Legend: N eyes, V views (horizontal, vertical), Z depth, X lateral, K components.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from sklearn.decomposition import PCA
from torch import nn

from edge_runtime.errors import ConfigError
from train.oct_flatten import bruch_rows, flatten_to_rows

__all__ = ["OCT_TARGETS", "OctTargetConfig", "WhitenedComponents", "make_oct_targets"]

FloatArray = npt.NDArray[np.float32]


_FLAT_PATCH_SD = 2.0  # grey levels; below it a patch holds only speckle and is left small


@dataclass(frozen=True, kw_only=True)
class _Form:
    """One kind of target.

    Attributes:
        flatten: shift every column to bring Bruch's membrane to one row.
        scale: reduced scans (M, S, S) of 0..255 and the patch side -> targets (M, S, S).
    """

    flatten: bool
    scale: Callable[[FloatArray, int], FloatArray]


def _unscaled(reduced: FloatArray, _: int) -> FloatArray:
    return (reduced / 255.0 - 0.5).astype(np.float32)


def _by_scan(reduced: FloatArray, _: int) -> FloatArray:
    """Mean 0 and sd 1 in every scan."""
    spread = reduced.std((1, 2), keepdims=True)
    scaled: FloatArray = (reduced - reduced.mean((1, 2), keepdims=True)) / np.maximum(spread, 1.0)
    return scaled


def _by_patch(reduced: FloatArray, patch_px: int) -> FloatArray:
    """Mean 0 in every patch and sd 1 but where it is flat, as MAE's normalised pixels."""
    num, side, _ = reduced.shape
    count = side // patch_px
    tiles = reduced.reshape(num, count, patch_px, count, patch_px)
    mean = tiles.mean((2, 4), keepdims=True)
    spread = np.sqrt(tiles.var((2, 4), keepdims=True) + _FLAT_PATCH_SD**2)
    scaled: FloatArray = ((tiles - mean) / spread).reshape(reduced.shape).astype(np.float32)
    return scaled


# What the routes can be asked to predict; whitened components go beside any of them.
OCT_TARGETS: Mapping[str, _Form] = {
    "flattened": _Form(flatten=True, scale=_by_scan),
    "normalized": _Form(flatten=False, scale=_by_patch),
    "raw": _Form(flatten=False, scale=_unscaled),
}


@dataclass(frozen=True, kw_only=True)
class OctTargetConfig:
    """How B-scans become targets.

    Attributes:
        kind: a key of `OCT_TARGETS`.
        side_px: side of the reduced square scan.
        patch_px: side of the patches a decoder query predicts.
        num_components: whitened principal components with a loss of their own; 0 = none.
    """

    kind: str = "flattened"
    side_px: int = 32
    patch_px: int = 8
    num_components: int = 12

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        if self.kind not in OCT_TARGETS:
            known = ", ".join(repr(name) for name in OCT_TARGETS)
            raise ConfigError(f"kind is {self.kind!r}; choose one of {known}")
        if self.side_px % self.patch_px:
            raise ConfigError(f"side_px {self.side_px} is not a multiple of {self.patch_px}")
        if self.num_components < 0:
            raise ConfigError(f"num_components is {self.num_components}; it cannot be negative")


def _reduce(scan_zx: FloatArray, side_px: int) -> FloatArray:
    return cv2.resize(scan_zx, (side_px, side_px), interpolation=cv2.INTER_AREA).astype(np.float32)


def make_oct_targets(
    scans_nvzx: npt.NDArray[np.uint8], config: OctTargetConfig, *, chunk: int = 512
) -> FloatArray:
    """Turn stored B-scans into targets.

    Args:
        scans_nvzx: (N, V, Z, X) uint8.
        config: the kind of target.
        chunk: eyes handled at a time, to bound memory.

    Returns:
        (N, V, side, side) float32; 'flattened' has mean 0 and sd 1 in every scan,
        'normalized' the same in every patch, 'raw' is pixels / 255 - 0.5; in the last two
        each scan is where it lay.
    """
    form = OCT_TARGETS[config.kind]
    num, views = scans_nvzx.shape[:2]
    out = np.empty((num, views, config.side_px, config.side_px), np.float32)
    for start in range(0, num, chunk):
        part = scans_nvzx[start : start + chunk]
        flat = part.reshape(-1, *part.shape[2:])
        scans = flatten_to_rows(flat, bruch_rows(flat)) if form.flatten else flat.astype(np.float32)
        reduced = np.stack([_reduce(scan, config.side_px) for scan in scans])
        scaled = form.scale(reduced, config.patch_px)
        out[start : start + chunk] = scaled.reshape(len(part), views, *scaled.shape[1:])
    return out


class WhitenedComponents(nn.Module):
    """Squared error in the leading principal components, each scaled to unit variance.

    For targets y and predictions p with component directions u_k and training standard
    deviations s_k the loss is mean_k ((u_k . (p - y)) / s_k)^2: predicting the mean scan
    costs about 1, whatever the component's share of the pixel variance.
    """

    directions: torch.Tensor
    spreads: torch.Tensor

    def __init__(self, directions: torch.Tensor, spreads: torch.Tensor) -> None:
        """Hold (K, V*Z*X) unit directions and (K,) standard deviations as buffers."""
        super().__init__()
        self.register_buffer("directions", directions)
        self.register_buffer("spreads", spreads)

    @classmethod
    def fit(cls, targets_nvzx: FloatArray, num_components: int) -> WhitenedComponents:
        """Principal components of the training targets, by scikit-learn's randomised PCA."""
        flat = targets_nvzx.reshape(len(targets_nvzx), -1)
        if len(flat) <= num_components:
            raise ConfigError(
                f"{len(flat)} eyes cannot give {num_components} components; use fewer components"
            )
        found = PCA(num_components, svd_solver="randomized", random_state=0).fit(flat)
        spreads = np.sqrt(np.maximum(found.explained_variance_, 1e-12)).astype(np.float32)
        directions = np.ascontiguousarray(found.components_, dtype=np.float32)
        return cls(torch.from_numpy(directions), torch.from_numpy(spreads))

    def forward(self, predicted_nvzx: torch.Tensor, target_nvzx: torch.Tensor) -> torch.Tensor:
        """Mean whitened squared error, a scalar, in float32 (also under autocast)."""
        # Autocast would run this product in bfloat16 and round errors to three digits.
        with torch.autocast(predicted_nvzx.device.type, enabled=False):
            error = (predicted_nvzx.float() - target_nvzx.float()).flatten(1)
            return (((error @ self.directions.T) / self.spreads) ** 2).mean()
