"""Cross-modal masked reconstruction: encoders, one decoder a route, and their losses.

Forward reads top to bottom: hide CFP patches -> encode each source once per mask ratio
-> decode every route from its own sources -> score hidden, in-field patches (CFP) or
whole scans (OCT) in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from train.arrays import circle_mask, patchify, unpatchify
from train.decoder import SourceDecoder
from train.encoder import CfpEncoder, EncoderConfig, OctEncoder
from train.engine.distributed import current_ranks
from train.joint import JointEncoder
from train.masking import expand_mask, hidden_patches, in_field_patches
from train.match import MatchHead, masked_mean
from train.oct_targets import OctTargetConfig, WhitenedComponents
from train.reconstruction import cfp_loss, oct_loss
from train.routes import Route
from train.structure.config import STRUCTURES, StructureConfig
from train.structure.switches import (
    cross_attention_bias,
    patch_loss_weights,
    structure_loss,
    structured_hidden_patches,
)

__all__ = [
    "CFP_PATCH_PX",
    "VIEWS",
    "PretrainModel",
    "RouteOutput",
    "Sources",
]

CFP_PATCH_PX = 16
VIEWS = ("macula_h", "macula_v")


@dataclass(frozen=True, kw_only=True)
class RouteOutput:
    """What one route predicted and what it cost.

    Attributes:
        loss: scalar float32, already without the route's weight.
        predicted: (N, 3, S, S) for CFP in patch-normalised units, (N, V, Z, X) for OCT,
            (N, T, K) logits for structure, (N, E) CFP embeddings for a match.
        hidden: (N, T) bool CFP patches that were hidden, or None where none were.
    """

    loss: torch.Tensor
    predicted: torch.Tensor
    hidden: torch.Tensor | None


@dataclass(frozen=True, kw_only=True)
class Sources:
    """A batch as the routes see it.

    Attributes:
        cfp_nchw: (N, 3, S, S) normalised float32.
        oct_input_nvzx: (N, V, Z, X) what the OCT encoder may see.
        oct_target_nvzx: (N, V, Z, X) what the OCT routes are scored against.
        present_nv: (N, V) bool, the scans that exist; None = all of them.
        structure_ntk: (N, T, K) structural maps, or None where no switch needs them.
        quality_nk: (N, K) how far each map can be trusted; with `structure_ntk`.
    """

    cfp_nchw: torch.Tensor
    oct_input_nvzx: torch.Tensor
    oct_target_nvzx: torch.Tensor
    present_nv: torch.Tensor | None = None
    structure_ntk: torch.Tensor | None = None
    quality_nk: torch.Tensor | None = None

    def first(self, count: int) -> Sources:
        """The first `count` eyes."""

        def cut(part: torch.Tensor | None) -> torch.Tensor | None:
            return None if part is None else part[:count]

        return Sources(
            cfp_nchw=self.cfp_nchw[:count],
            oct_input_nvzx=self.oct_input_nvzx[:count],
            oct_target_nvzx=self.oct_target_nvzx[:count],
            present_nv=cut(self.present_nv),
            structure_ntk=cut(self.structure_ntk),
            quality_nk=cut(self.quality_nk),
        )


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
        decoder_depth: int = 1,
        structure: StructureConfig | None = None,
    ) -> None:
        """Build the encoders that the routes need and one decoder a route."""
        super().__init__()
        self.routes, self.oct_target, self.whitened = routes, oct_target, whitened
        self.decoder_depth = decoder_depth
        self.structure = structure or StructureConfig()
        self.cfp_encoder = CfpEncoder(encoder)
        if any("oct" in route.sources for route in routes):
            self.oct_encoder = OctEncoder(
                side_px=oct_target.side_px,
                patch_px=oct_target.patch_px,
                num_views=len(VIEWS),
                width=encoder.width,
            )
        if any(route.is_joint for route in routes):
            self.joint_encoder = JointEncoder(self.cfp_encoder, self.oct_encoder)
        self.decoders = nn.ModuleDict({route.name: self._head(route) for route in routes})
        self.register_buffer("in_field", in_field_patches(encoder.size_px, CFP_PATCH_PX))
        circle = circle_mask(encoder.size_px).to(torch.float32)[None, None]
        self.register_buffer("inside", patchify(circle, CFP_PATCH_PX)[0])

    def _head(self, route: Route) -> nn.Module:
        width = self.cfp_encoder.config.width
        if route.target == "match":
            return MatchHead(width)
        if route.target == "structure":
            return nn.Linear(width, len(STRUCTURES))
        if route.target == "cfp":
            queries, outputs = self.cfp_encoder.config.num_tokens, 3 * CFP_PATCH_PX**2
        else:
            queries = len(VIEWS) * self._scan_patches
            outputs = self.oct_target.patch_px**2
        return SourceDecoder(
            num_queries=queries, num_outputs=outputs, width=width, depth=self.decoder_depth
        )

    @property
    def _scan_patches(self) -> int:
        return (self.oct_target.side_px // self.oct_target.patch_px) ** 2

    def forward(
        self,
        cfp_nchw: torch.Tensor,
        oct_input_nvzx: torch.Tensor,
        oct_target_nvzx: torch.Tensor,
        generator: torch.Generator,
        *,
        present_nv: torch.Tensor | None = None,
        structure_ntk: torch.Tensor | None = None,
        quality_nk: torch.Tensor | None = None,
    ) -> dict[str, RouteOutput]:
        """Run every route.

        Args:
            cfp_nchw: (N, 3, S, S) normalised float32.
            oct_input_nvzx: (N, V, Z, X) what the OCT encoder may see.
            oct_target_nvzx: (N, V, Z, X) what the OCT routes are scored against; the same
                scans, handed over apart so that a leak from the input can be tested.
            generator: on the CPU, draws the masks.
            present_nv: (N, V) bool, the scans that exist; None = all of them.
            structure_ntk: (N, T, K) structural maps; needed where a switch is on.
            quality_nk: (N, K) their quality.

        Returns:
            Route name -> RouteOutput; in training over the first `batch_share` of the batch.

        Raises:
            ValueError: a structural switch is on and the maps are missing.
        """
        if self.structure.needs_structures and (structure_ntk is None or quality_nk is None):
            raise ValueError("a structural switch is on: give structure_ntk and quality_nk")
        batch = Sources(
            cfp_nchw=cfp_nchw,
            oct_input_nvzx=oct_input_nvzx,
            oct_target_nvzx=oct_target_nvzx,
            present_nv=present_nv,
            structure_ntk=structure_ntk,
            quality_nk=quality_nk,
        )
        whole_cfp = _WholeCfp(self.cfp_encoder, cfp_nchw)
        outputs = {}
        for route in self.routes:
            share = route.batch_share if self.training else 1.0
            part = batch.first(max(2, round(share * len(cfp_nchw))))
            outputs[route.name] = self._run(route, part, whole_cfp, generator)
        return outputs

    def total_loss(self, outputs: dict[str, RouteOutput], *, done: float = 1.0) -> torch.Tensor:
        """Weighted sum over the route table when the share `done` of the steps is done."""
        losses = [route.weight_at(done) * outputs[route.name].loss for route in self.routes]
        return torch.stack(losses).sum()

    def _run(
        self, route: Route, batch: Sources, whole_cfp: _WholeCfp, generator: torch.Generator
    ) -> RouteOutput:
        if route.target == "match":
            return self._match(route, batch, whole_cfp)
        if route.target == "structure":
            return self._map(route, batch, whole_cfp)
        hidden = None
        if route.is_joint:
            hidden, tokens = self._joint_tokens(batch, route, generator)
        elif route.sources == ("oct",):
            tokens = self._oct_tokens(batch.oct_input_nvzx, route.mask_ratio, generator)
        elif route.mask_ratio == 0:
            tokens = whole_cfp.first(len(batch.cfp_nchw))
        else:
            hidden = self._hidden(batch, route.mask_ratio, generator)
            tokens = self.cfp_encoder(batch.cfp_nchw * ~expand_mask(hidden, CFP_PATCH_PX))
        predicted = self.decoders[route.name](tokens, self._bias(route, batch))
        if route.target == "cfp":
            return self._score_cfp(predicted, batch, hidden)
        return self._score_oct(predicted, batch)

    def _hidden(self, batch: Sources, ratio: float, generator: torch.Generator) -> torch.Tensor:
        num = len(batch.cfp_nchw)
        if self.structure.hide_weight == 1:
            return hidden_patches(num, self.in_field, ratio, generator)
        assert batch.structure_ntk is not None
        return structured_hidden_patches(
            num, self.in_field, ratio, generator, batch.structure_ntk, self.structure
        )

    def _oct_tokens(
        self, oct_nvzx: torch.Tensor, ratio: float, generator: torch.Generator
    ) -> torch.Tensor:
        """Hide OCT patches by zeroing them (0 is the scan's mean), then encode each view."""
        keep = ~self._hidden_scan_pixels(oct_nvzx, ratio, generator)
        tokens: torch.Tensor = self.oct_encoder(oct_nvzx * keep)
        return tokens.flatten(1, 2)

    def _hidden_scan_pixels(
        self, oct_nvzx: torch.Tensor, ratio: float, generator: torch.Generator
    ) -> torch.Tensor:
        """(N, V, Z, X) bool, True = hidden; the same number of patches in every scan."""
        everywhere = torch.ones(self._scan_patches, dtype=torch.bool, device=oct_nvzx.device)
        num_scans = oct_nvzx.shape[0] * oct_nvzx.shape[1]
        hidden = hidden_patches(num_scans, everywhere, ratio, generator)
        return expand_mask(hidden, self.oct_target.patch_px).reshape(oct_nvzx.shape)

    def _joint_tokens(
        self, batch: Sources, route: Route, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self._hidden(batch, route.mask_ratio, generator)
        oct_nvzx = batch.oct_input_nvzx
        if batch.present_nv is not None:  # to attention, a missing scan is an empty one
            oct_nvzx = oct_nvzx * batch.present_nv[..., None, None]
        keep = ~self._hidden_scan_pixels(oct_nvzx, route.mask_ratio, generator)
        tokens = self.joint_encoder(
            batch.cfp_nchw * ~expand_mask(hidden, CFP_PATCH_PX), oct_nvzx * keep
        )
        return hidden, tokens

    def _bias(self, route: Route, batch: Sources) -> torch.Tensor | None:
        """Where queries may look: at scans that exist, and (switch 2) at the view's structure."""
        if route.target == "oct" and route.sources == ("cfp",) and batch.structure_ntk is not None:
            side = self.oct_target.side_px // self.oct_target.patch_px
            return cross_attention_bias(batch.structure_ntk, VIEWS, (side, side), self.structure)
        if "oct" not in route.sources or batch.present_nv is None:
            return None
        absent_nt = (~batch.present_nv).repeat_interleave(self._scan_patches, 1)
        # An eye without any scan keeps its keys: a softmax over nothing is no number, and
        # nothing it predicts is scored.
        absent_nt &= batch.present_nv.any(1, keepdim=True)
        if route.is_joint:
            seen = torch.zeros_like(absent_nt[:, :1]).expand(-1, self.cfp_encoder.config.num_tokens)
            absent_nt = torch.cat([seen, absent_nt], 1)
        return torch.zeros(absent_nt.shape, device=absent_nt.device).masked_fill(
            absent_nt, -torch.inf
        )[:, None]

    def _score_cfp(
        self, predicted: torch.Tensor, batch: Sources, hidden: torch.Tensor | None
    ) -> RouteOutput:
        original = patchify(batch.cfp_nchw, CFP_PATCH_PX)
        scored = self.in_field.expand(original.shape[:2]) if hidden is None else hidden
        weight: torch.Tensor = scored
        if self.structure.loss_alpha > 0:
            assert batch.structure_ntk is not None
            weight = patch_loss_weights(
                batch.structure_ntk, scored, self.structure.loss_alpha, self.structure
            )
        return RouteOutput(
            loss=cfp_loss(predicted, original, self.inside, weight),
            predicted=unpatchify(predicted.float(), CFP_PATCH_PX, 3),
            hidden=hidden,
        )

    def _score_oct(self, predicted: torch.Tensor, batch: Sources) -> RouteOutput:
        target = batch.oct_target_nvzx
        patches = predicted.float().reshape(-1, self._scan_patches, self.oct_target.patch_px**2)
        scans = unpatchify(patches, self.oct_target.patch_px, 1).reshape(target.shape)
        loss = oct_loss(scans, target, self.whitened, batch.present_nv)
        return RouteOutput(loss=loss, predicted=scans, hidden=None)

    def _match(self, route: Route, batch: Sources, whole_cfp: _WholeCfp) -> RouteOutput:
        """Eyes without any scan take no part, also not as wrong answers."""
        head = self.decoders[route.name]
        assert isinstance(head, MatchHead)
        cfp = whole_cfp.first(len(batch.cfp_nchw)).float().mean(1)
        oct_ = masked_mean(self.oct_encoder(batch.oct_input_nvzx), batch.present_nv)
        if batch.present_nv is not None:
            seen = batch.present_nv.any(1)
            cfp, oct_ = cfp[seen], oct_[seen]
        if len(cfp):
            loss = head(cfp, oct_)
        else:
            loss = cfp.sum()
            if current_ranks().world_size > 1:  # ranks wait for a gradient of every weight
                touched = torch.stack([weight.sum() for weight in head.parameters()])
                loss = loss + oct_.sum() + 0.0 * touched.sum()
        return RouteOutput(loss=loss, predicted=head.embed_cfp(cfp), hidden=None)

    def _map(self, route: Route, batch: Sources, whole_cfp: _WholeCfp) -> RouteOutput:
        if batch.structure_ntk is None or batch.quality_nk is None:
            raise ValueError(f"route {route.name} needs structure_ntk and quality_nk")
        logits = self.decoders[route.name](whole_cfp.first(len(batch.cfp_nchw)))
        loss = structure_loss(logits, batch.structure_ntk, batch.quality_nk)
        return RouteOutput(loss=loss, predicted=logits.float(), hidden=None)


class _WholeCfp:
    """Tokens of the unmasked CFP, encoded at most once a step however many routes read them."""

    def __init__(self, encoder: CfpEncoder, cfp_nchw: torch.Tensor) -> None:
        self.encoder, self.cfp_nchw = encoder, cfp_nchw
        self.tokens: torch.Tensor | None = None

    def first(self, count: int) -> torch.Tensor:
        """(count, T, D)."""
        if self.tokens is None:
            self.tokens = self.encoder(self.cfp_nchw)
        return self.tokens[:count]
