"""The two losses of segmentation: one looks at pixels, the other at whole structures.

Legend: N images, C targets, S side in pixels. A target that nobody drew on an image
(`known` False) costs nothing there; an empty mask that somebody drew is learnt.
"""

from __future__ import annotations

import torch
from torch.nn import functional

__all__ = ["dice_loss", "pixel_bce"]

# Added to both sides of the Dice fraction, in pixels: without it a target that no image of
# the batch shows would divide 0 by 0.
_SMOOTH_PX = 1.0


def pixel_bce(
    logits_ncss: torch.Tensor, masks_ncss: torch.Tensor, known_nc: torch.Tensor
) -> torch.Tensor:
    """Binary cross-entropy, -t log p - (1 - t) log(1 - p), mean over known pixels; float32.

    Args:
        logits_ncss: (N, C, S, S), p = sigmoid(logits).
        masks_ncss: (N, C, S, S), t in {0, 1}.
        known_nc: (N, C) bool.
    """
    target = masks_ncss.float()
    loss = functional.binary_cross_entropy_with_logits(
        logits_ncss.float(), target, reduction="none"
    )
    per_mask = loss.mean((2, 3))
    return (per_mask * known_nc).sum() / known_nc.sum().clamp(min=1)


def dice_loss(
    logits_ncss: torch.Tensor, masks_ncss: torch.Tensor, known_nc: torch.Tensor
) -> torch.Tensor:
    """1 - (2 sum p t + 1) / (sum p + sum t + 1), mean over targets; float32.

    The sums of a target run over all its known pixels of the batch, not over one image: an
    image without lesions then still teaches (its p only adds to the denominator), and a
    lesion of three pixels does not weigh as much as a whole disc.

    Arguments as for `pixel_bce`. A target that is known nowhere in the batch is left out.
    """
    known = known_nc[:, :, None, None]
    probability = logits_ncss.float().sigmoid() * known
    target = masks_ncss.float() * known
    both = (probability * target).sum((0, 2, 3))
    total = probability.sum((0, 2, 3)) + target.sum((0, 2, 3))
    loss_c = 1 - (2 * both + _SMOOTH_PX) / (total + _SMOOTH_PX)
    held = known_nc.any(0)
    return (loss_c * held).sum() / held.sum().clamp(min=1)
