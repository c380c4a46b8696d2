"""Tiny training material made by hand: networks of a few thousand weights and random eyes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from train.dataset_arrays import SplitArrays
from train.encoder import EncoderConfig
from train.oct_targets import OctTargetConfig, WhitenedComponents
from train.pretrain_config import PretrainConfig
from train.pretrain_model import PretrainModel
from train.routes import ROUTE_TABLES, Route

# One core per test process: threads cost more than they bring at these sizes.
torch.set_num_threads(1)

DISEASES = ("macular_edema", "glaucoma")
TINY_ENCODER = EncoderConfig(size_px=32, width=16, depth=1, num_heads=2, stem_width=4)
# 6 x 6 patches: the smallest grid whose corners lie outside the field of view.
FIELD_ENCODER = replace(TINY_ENCODER, size_px=96)
TINY_TARGET = OctTargetConfig(side_px=16, patch_px=8, num_components=3)
ALL_ROUTES = (
    *ROUTE_TABLES["oct_informed"],
    Route(target="cfp", sources=("oct",), weight=0.1),
)


def tiny_config(**changes: object) -> PretrainConfig:
    base = PretrainConfig(num_steps=2, batch_size=8, encoder=TINY_ENCODER, oct_target=TINY_TARGET)
    return replace(base, **changes)


def make_split(num_patients: int = 8, *, size_px: int = 32, seed: int = 0) -> SplitArrays:
    """Two random eyes a patient; every label has both values, every third eye is ungradable."""
    rng = np.random.default_rng(seed)
    num = 2 * num_patients
    labels = np.stack([np.arange(num) % 2, np.arange(num) // 2 % 2, np.arange(num) % 3 > 0], 1)
    return SplitArrays(
        images_nhwc=rng.integers(0, 256, (num, size_px, size_px, 3), dtype=np.uint8),
        scans_nvzx=rng.integers(0, 256, (num, 2, 24, 32), dtype=np.uint8),
        labels=labels.astype(np.float32),
        label_names=(*DISEASES, "gradable"),
        patient_ids=np.array([f"P{i // 2:03d}" for i in range(num)]),
        eyes=np.array([("OD", "OS")[i % 2] for i in range(num)]),
        excluded=(),
        fingerprint="0" * 64,
    )


def make_model(
    routes: tuple[Route, ...] = ALL_ROUTES,
    *,
    encoder: EncoderConfig = TINY_ENCODER,
    whitened: WhitenedComponents | None = None,
    seed: int = 0,
) -> PretrainModel:
    torch.manual_seed(seed)
    return PretrainModel(encoder=encoder, oct_target=TINY_TARGET, routes=routes, whitened=whitened)


def make_batch(num: int = 4, *, size_px: int = 32, seed: int = 0):
    """Normalised CFPs (N, 3, S, S) and OCT targets (N, 2, 16, 16)."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(num, 3, size_px, size_px, generator=generator),
        torch.randn(num, 2, 16, 16, generator=generator),
    )


def masks(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
