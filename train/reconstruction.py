"""What a reconstruction costs: CFP patches by patch-normalised error, OCT by whitened error.

Both losses are float32 whatever the network ran in. A CFP patch counts where it was
hidden and only with its pixels inside the field; an OCT scan counts where it is present.

Legend: N images, T CFP patches of P x P pixels, V views, Z depth, X lateral.
"""

from __future__ import annotations

import torch

from train.oct_targets import WhitenedComponents

__all__ = ["cfp_loss", "oct_loss", "patch_denormalized", "patch_normalized"]

_PIXEL_SHARE = 0.25  # beside the whitened components: keeps the pictures whole, leads nothing
_FLAT_PATCH_VARIANCE = 1e-3  # (2 grey levels / 64)^2: below it a patch holds only sensor noise


def _by_colour(patches_ntd: torch.Tensor) -> torch.Tensor:
    """(N, T, P*P*3) -> (N, T, P*P, 3)."""
    return patches_ntd.reshape(*patches_ntd.shape[:-1], -1, 3)


def patch_normalized(
    patches_ntd: torch.Tensor, inside_tp: torch.Tensor | None = None
) -> torch.Tensor:
    """Each colour of each patch with mean 0 and sd 1; a nearly flat one is left small.

    By colour, because a fundus is red: over all three together the offset between the
    colours would be most of the variance, and predicting it teaches nothing.

    Args:
        patches_ntd: (N, T, P*P*3).
        inside_tp: (T, P*P) 1 for pixels inside the field, whose mean and sd count; None = all.
    """
    mean, spread = _statistics(patches_ntd, inside_tp)
    return ((_by_colour(patches_ntd) - mean) / spread).flatten(-2)


def patch_denormalized(
    predicted_ntd: torch.Tensor,
    original_ntd: torch.Tensor,
    inside_tp: torch.Tensor | None = None,
) -> torch.Tensor:
    """Undo `patch_normalized` with the mean and sd of the original patches, to look at it."""
    mean, spread = _statistics(original_ntd, inside_tp)
    return (_by_colour(predicted_ntd) * spread + mean).flatten(-2)


def _statistics(
    patches_ntd: torch.Tensor, inside_tp: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and sd of each colour of each patch over its pixels inside; (N, T, 1, 3) each."""
    colours = _by_colour(patches_ntd)
    if inside_tp is None:
        inside_tp = torch.ones(colours.shape[1:3], device=colours.device)
    weight = inside_tp[..., None]
    count = weight.sum(-2, keepdim=True).clamp(min=1)
    mean = (colours * weight).sum(-2, keepdim=True) / count
    variance = ((colours - mean).square() * weight).sum(-2, keepdim=True) / count
    return mean, (variance + _FLAT_PATCH_VARIANCE).sqrt()


def cfp_loss(
    predicted_ntd: torch.Tensor,
    original_ntd: torch.Tensor,
    inside_tp: torch.Tensor,
    weight_nt: torch.Tensor,
) -> torch.Tensor:
    """Mean squared error over the pixels inside the field of the patches that count.

    Args:
        predicted_ntd: (N, T, P*P*3) in patch-normalised units.
        original_ntd: (N, T, P*P*3) the patches as they are.
        inside_tp: (T, P*P) 1 inside the field.
        weight_nt: (N, T) weight of each patch, bool or float; 0 = not scored.

    Returns:
        Scalar float32.
    """
    target = patch_normalized(original_ntd, inside_tp)
    error = _by_colour((predicted_ntd.float() - target).square()).mean(-1)
    weight = weight_nt[..., None] * inside_tp
    return (error * weight).sum() / weight.sum()


def oct_loss(
    predicted_nvzx: torch.Tensor,
    target_nvzx: torch.Tensor,
    whitened: WhitenedComponents | None,
    present_nv: torch.Tensor | None = None,
) -> torch.Tensor:
    """Pixel error of the scans that are there, plus whitened error of eyes with all of them.

    The whitened components span all views, so an eye that lacks one has no such term.

    Args:
        predicted_nvzx: (N, V, Z, X).
        target_nvzx: (N, V, Z, X); no gradient flows into it.
        whitened: None = pixels alone.
        present_nv: (N, V) bool; None = every scan is there.

    Returns:
        Scalar float32; 0, with a gradient of 0, for a batch without a scan.
    """
    predicted, target = predicted_nvzx.float(), target_nvzx.detach().float()
    if present_nv is None:
        pixels = (predicted - target).square().mean()
        complete = torch.ones(len(target), dtype=torch.bool, device=target.device)
    else:
        by_scan = (predicted - target).square().mean((2, 3))
        pixels = (by_scan * present_nv).sum() / present_nv.sum().clamp(min=1)
        complete = present_nv.all(1)
    if whitened is None:
        return pixels
    loss = _PIXEL_SHARE * pixels
    if bool(complete.all()):
        loss = loss + whitened(predicted, target)
    elif bool(complete.any()):
        loss = loss + whitened(predicted[complete], target[complete])
    return loss
