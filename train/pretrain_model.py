"""Cross-modal masked reconstruction: encoders, one decoder a route, and their losses.

Forward reads top to bottom: hide CFP patches -> encode each source once per mask ratio
-> decode every route from its one source -> score hidden, in-field patches (CFP) or
whole scans (OCT) in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from train.arrays import circle_mask, patchify, unpatchify
from train.decoder import SourceDecoder
from train.encoder import CfpEncoder, EncoderConfig, OctEncoder
from train.masking import expand_mask, hidden_patches, in_field_patches
from train.oct_targets import OctTargetConfig, WhitenedComponents
from train.routes import Route

__all__ = [
    "CFP_PATCH_PX",
    "NUM_VIEWS",
    "PretrainModel",
    "RouteOutput",
    "patch_denormalized",
    "patch_normalized",
]

CFP_PATCH_PX = 16
NUM_VIEWS = 2
_PIXEL_SHARE = 0.25  # beside the whitened components: keeps the pictures whole, leads nothing
_FLAT_PATCH_VARIANCE = 1e-3  # (2 grey levels / 64)^2: below it a patch holds only sensor noise


@dataclass(frozen=True, kw_only=True)
class RouteOutput:
    """What one route predicted and what it cost.

    Attributes:
        loss: scalar float32, already without the route's weight.
        predicted: (N, 3, S, S) for CFP in patch-normalised units, (N, V, Z, X) for OCT.
        hidden: (N, T) bool CFP patches that were hidden, or None for OCT targets.
    """

    loss: torch.Tensor
    predicted: torch.Tensor
    hidden: torch.Tensor | None


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


class PretrainModel(nn.Module):
    """Everything that pretraining trains; only `cfp_encoder` is kept afterwards."""

    in_field: torch.Tensor
    inside: torch.Tensor

    def __init__(
        self,
        *,
        encoder: EncoderConfig,
        oct_target: OctTargetConfig,
        routes: tuple[Route, ...],
        whitened: WhitenedComponents | None,
    ) -> None:
        """Build the encoders that the routes need and one decoder a route."""
        super().__init__()
        self.routes, self.oct_target, self.whitened = routes, oct_target, whitened
        self.cfp_encoder = CfpEncoder(encoder)
        if any(route.source == "oct" for route in routes):
            self.oct_encoder = OctEncoder(
                side_px=oct_target.side_px,
                patch_px=oct_target.patch_px,
                num_views=NUM_VIEWS,
                width=encoder.width,
            )
        self.decoders = nn.ModuleDict({route.name: self._decoder(route) for route in routes})
        self.register_buffer("in_field", in_field_patches(encoder.size_px, CFP_PATCH_PX))
        circle = circle_mask(encoder.size_px).to(torch.float32)[None, None]
        self.register_buffer("inside", patchify(circle, CFP_PATCH_PX)[0])

    def _decoder(self, route: Route) -> SourceDecoder:
        width = self.cfp_encoder.config.width
        if route.target == "cfp":
            return SourceDecoder(
                num_queries=self.cfp_encoder.config.num_tokens,
                num_outputs=3 * CFP_PATCH_PX**2,
                width=width,
            )
        per_view = (self.oct_target.side_px // self.oct_target.patch_px) ** 2
        return SourceDecoder(
            num_queries=NUM_VIEWS * per_view,
            num_outputs=self.oct_target.patch_px**2,
            width=width,
        )

    def forward(
        self,
        cfp_nchw: torch.Tensor,
        oct_input_nvzx: torch.Tensor,
        oct_target_nvzx: torch.Tensor,
        generator: torch.Generator,
    ) -> dict[str, RouteOutput]:
        """Run every route.

        Args:
            cfp_nchw: (N, 3, S, S) normalised float32.
            oct_input_nvzx: (N, V, Z, X) what the OCT encoder may see.
            oct_target_nvzx: (N, V, Z, X) what the OCT routes are scored against; the same
                scans, handed over apart so that a leak from the input can be tested.
            generator: on the CPU, draws the masks.

        Returns:
            Route name -> RouteOutput; in training over the first `batch_share` of the batch.
        """
        outputs = {}
        for route in self.routes:
            share = route.batch_share if self.training else 1.0
            count = max(2, round(share * len(cfp_nchw)))
            cfp, oct_input = cfp_nchw[:count], oct_input_nvzx[:count]
            if route.source == "cfp":
                hidden = self._hidden(len(cfp), route, generator)
                tokens = self.cfp_encoder(cfp * ~expand_mask(hidden, CFP_PATCH_PX))
            else:
                hidden, tokens = None, self._oct_tokens(oct_input, route, generator)
            predicted = self.decoders[route.name](tokens)
            outputs[route.name] = (
                self._score_cfp(predicted, cfp, hidden)
                if route.target == "cfp"
                else self._score_oct(predicted, oct_target_nvzx[:count])
            )
        return outputs

    def total_loss(self, outputs: dict[str, RouteOutput]) -> torch.Tensor:
        """Weighted sum over the route table."""
        return torch.stack([r.weight * outputs[r.name].loss for r in self.routes]).sum()

    def _hidden(self, num: int, route: Route, generator: torch.Generator) -> torch.Tensor:
        if route.mask_ratio == 0:
            shape = (num, len(self.in_field))
            return torch.zeros(shape, dtype=torch.bool, device=self.in_field.device)
        return hidden_patches(num, self.in_field, route.mask_ratio, generator)

    def _oct_tokens(
        self, oct_nvzx: torch.Tensor, route: Route, generator: torch.Generator
    ) -> torch.Tensor:
        """Hide OCT patches by zeroing them (0 is the scan's mean), then encode each view."""
        num, views, side, _ = oct_nvzx.shape
        num_patches = (side // self.oct_target.patch_px) ** 2
        everywhere = torch.ones(num_patches, dtype=torch.bool, device=oct_nvzx.device)
        hidden = hidden_patches(num * views, everywhere, route.mask_ratio, generator)
        keep = ~expand_mask(hidden, self.oct_target.patch_px)
        tokens: torch.Tensor = self.oct_encoder(oct_nvzx * keep.reshape(oct_nvzx.shape))
        return tokens.flatten(1, 2)

    def _score_cfp(
        self, predicted: torch.Tensor, cfp_nchw: torch.Tensor, hidden: torch.Tensor | None
    ) -> RouteOutput:
        """Mean squared error over the pixels inside the field of the patches that count."""
        target = patch_normalized(patchify(cfp_nchw, CFP_PATCH_PX), self.inside)
        error = _by_colour((predicted.float() - target).square()).mean(-1)
        scored = self.in_field.expand(error.shape[:2]) if hidden is None else hidden
        weight = scored[..., None] * self.inside
        loss = (error * weight).sum() / weight.sum()
        picture = unpatchify(predicted.float(), CFP_PATCH_PX, 3)
        return RouteOutput(loss=loss, predicted=picture, hidden=hidden)

    def _score_oct(self, predicted: torch.Tensor, target_nvzx: torch.Tensor) -> RouteOutput:
        num, views = target_nvzx.shape[:2]
        patches = predicted.float().reshape(num * views, -1, self.oct_target.patch_px**2)
        scans = unpatchify(patches, self.oct_target.patch_px, 1).reshape(target_nvzx.shape)
        pixel_loss = (scans - target_nvzx.detach().float()).square().mean()
        if self.whitened is None:
            return RouteOutput(loss=pixel_loss, predicted=scans, hidden=None)
        loss = _PIXEL_SHARE * pixel_loss + self.whitened(scans, target_nvzx.detach())
        return RouteOutput(loss=loss, predicted=scans, hidden=None)
