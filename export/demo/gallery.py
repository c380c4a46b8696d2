"""Pretraining triples for the page: what was shown, what was hidden, what was rebuilt."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from export.demo.html import label_words
from export.demo.pictures import Triple
from train.arrays import (
    PIXEL_CENTER,
    PIXEL_SCALE,
    circle_mask,
    normalize_cfp,
    patchify,
    unpatchify,
)
from train.dataset_arrays import SplitArrays
from train.masking import expand_mask
from train.oct_targets import make_oct_targets
from train.pretrain import Pretrained
from train.pretrain_model import CFP_PATCH_PX
from train.reconstruction import patch_denormalized
from train.teacher import GRADABLE

__all__ = ["pretraining_triples"]

_SHOWN = ("macular_edema", "myopic_schisis", "glaucoma", "referable_dr")


def pretraining_triples(arm: Pretrained, test: SplitArrays) -> tuple[Triple, ...]:
    """One gradable test eye without disease and one with each, through both CFP routes."""
    rows = _chosen_rows(test)
    assert test.scans_nvzx is not None
    images = torch.from_numpy(test.images_nhwc[rows])
    targets = make_oct_targets(test.scans_nvzx[rows], arm.config.oct_target)
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        cfp_nchw = normalize_cfp(images)
        scans = torch.from_numpy(targets)
        outputs = arm.model(cfp_nchw, scans, scans, generator)
    cfp, oct_ = outputs["cfp<-cfp"], outputs["oct<-cfp"]
    assert cfp.hidden is not None
    hidden = expand_mask(cfp.hidden, CFP_PATCH_PX)
    rebuilt = patch_denormalized(
        patchify(cfp.predicted, CFP_PATCH_PX),
        patchify(cfp_nchw, CFP_PATCH_PX),
        arm.model.inside,
    )
    inside = circle_mask(cfp_nchw.shape[-1])
    mixed = torch.where(hidden & inside, unpatchify(rebuilt, CFP_PATCH_PX, 3), cfp_nchw)
    masked = cfp_nchw * ~hidden
    return tuple(
        Triple(
            eye=str(test.eyes[row]),
            truth=_truth(test, row),
            cfp_hwc=test.images_nhwc[row],
            oct_h=test.scans_nvzx[row, 0],
            oct_v=test.scans_nvzx[row, 1],
            cfp_masked_hwc=_to_picture(masked[i]),
            cfp_reconstructed_hwc=_to_picture(mixed[i]),
            oct_target_h=targets[i, 0],
            oct_target_v=targets[i, 1],
            oct_predicted_h=oct_.predicted[i, 0].numpy(),
            oct_predicted_v=oct_.predicted[i, 1].numpy(),
        )
        for i, row in enumerate(rows)
    )


def _chosen_rows(test: SplitArrays) -> list[int]:
    """The first gradable eye with none of the diseases, then the first with only each one."""
    sick = np.stack([test.label(name) == 1 for name in _SHOWN], 1)
    usable = test.label(GRADABLE) == 1
    wanted = [np.zeros(len(_SHOWN), bool), *np.eye(len(_SHOWN), dtype=bool)]
    rows = [np.flatnonzero(usable & (sick == pattern).all(1)) for pattern in wanted]
    return [int(found[0]) for found in rows if len(found)]


def _truth(test: SplitArrays, row: int) -> str:
    names = [label_words(name) for name in _SHOWN if test.label(name)[row] == 1]
    return ", ".join(names) or "no disease"


def _to_picture(image_chw: torch.Tensor) -> npt.NDArray[np.uint8]:
    levels = (image_chw * PIXEL_SCALE + PIXEL_CENTER).clamp(0, 255).round()
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy().astype(np.uint8))
