"""The four places where structure maps enter pretraining, as pure functions of tensors.

1. sampling       which patches are hidden            structured_hidden_patches
2. attention      where an OCT query looks in the CFP attention_bias, line_bias
3. loss           how much a hidden patch counts      patch_loss_weights
4. target         predict the maps themselves         structure_loss

A structure that was not found has a map that is constant over the field of view
(train.structure.maps); every function below then does what it would do without it.

Legend: N images, T CFP tokens (row-major squares of a side-by-side grid), K structures in
the order of STRUCTURES, V views, Q queries. S_ntk in [0, 1] is the pooled map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from edge_runtime.errors import ConfigError
from train.structure.config import STRUCTURES, VIEW_STRUCTURES, StructureConfig

__all__ = [
    "attention_bias",
    "cross_attention_bias",
    "line_bias",
    "macula_center",
    "patch_loss_weights",
    "structure_loss",
    "structured_hidden_patches",
    "token_centers",
]

SCAN_HALF_LENGTH = 0.46  # field units: a 6 mm scan in a 45 degree field
_FOV = STRUCTURES.index("fov")
_MACULA = STRUCTURES.index("macula")
# A uniform map has a largest token of 1 times its mean over the field, a located macula of
# 5 and more; between them lies nothing.
_LOCATED_CONTRAST = 2.0


def _focus(structure_ntk: torch.Tensor, config: StructureConfig) -> torch.Tensor:
    """(N, T) float32, the maximum of the maps in focus, as a mean over the visible pixels.

    A token half outside the field is judged by its half inside, so that a uniform map gives
    every token of the field the same value.
    """
    field = structure_ntk[..., _FOV].float()
    focus = structure_ntk[..., list(config.focus_columns)].amax(-1).float()
    return torch.where(field > 0, focus / field.clamp(min=1e-6), torch.zeros_like(field)).clamp(
        0, 1
    )


def structured_hidden_patches(
    num_images: int,
    in_field: torch.Tensor,
    ratio: float,
    generator: torch.Generator,
    structure_ntk: torch.Tensor,
    config: StructureConfig,
) -> torch.Tensor:
    """Draw exactly round(ratio * in-field count) hidden patches, likelier by structure.

    Weighted sampling without replacement by Gumbel-top-k (Kool et al., arXiv 1903.06059),
    written as the equivalent race of exponentials (Efraimidis and Spirakis 2006): the
    smallest -log(1 - u) / w win, with w = 1 + (hide_weight - 1) * focus. With hide_weight 1
    the draw is bit for bit that of `train.masking.hidden_patches`.

    Args:
        num_images: N.
        in_field: (T,) bool, patches that may be hidden.
        ratio: in [0, 1]; above 0 at least one patch is hidden.
        generator: on the CPU.
        structure_ntk: (N, T, K) maps in [0, 1].
        config: `focus` and `hide_weight`.

    Returns:
        (N, T) bool on `in_field`'s device, True = hidden, never True outside the field.

    Raises:
        ValueError: the maps have another number of images or tokens.
    """
    if structure_ntk.shape[:2] != (num_images, len(in_field)):
        shape = tuple(structure_ntk.shape)
        raise ValueError(f"maps {shape} for {num_images} images of {len(in_field)} tokens")
    device, in_field = in_field.device, in_field.cpu()
    num_hidden = max(1, round(ratio * int(in_field.sum()))) if ratio > 0 else 0
    weight = 1 + (config.hide_weight - 1) * _focus(structure_ntk, config).double().cpu()
    uniform = torch.rand(num_images, len(in_field), generator=generator).double()
    arrival = (-torch.log1p(-uniform) / weight).masked_fill(~in_field, torch.inf)
    winners = arrival.argsort(dim=1)[:, :num_hidden]
    hidden = torch.zeros(num_images, len(in_field), dtype=torch.bool).scatter_(1, winners, True)
    return hidden.to(device)


def attention_bias(
    structure_ntk: torch.Tensor,
    view_structure: Sequence[str],
    eps: float,
    *,
    queries_per_view: int,
) -> torch.Tensor:
    """Bias towards the structure a view shows: log(eps + g), g = min(S_view, S_fov) / max of it.

    The same for all queries of a view. Dividing by the largest token makes eps mean the same
    for a small and a large structure and leaves the field of view alone where the structure
    was not found.

    Args:
        structure_ntk: (N, T, K) maps in [0, 1].
        view_structure: V names of STRUCTURES, one a view.
        eps: floor; 0 removes tokens with g = 0 and never all of them.
        queries_per_view: queries of each view, which follow each other view by view.

    Returns:
        (N, V * queries_per_view, T) float32 to add to the logits of cross-attention.
    """
    columns = [_column(name) for name in view_structure]
    field = structure_ntk[..., _FOV, None].float()
    gain_nvt = structure_ntk[..., columns].float().minimum(field).transpose(1, 2)
    return _log_bias(gain_nvt, eps).repeat_interleave(queries_per_view, 1)


def line_bias(
    structure_ntk: torch.Tensor,
    views: Sequence[str],
    eps: float,
    *,
    scan_grid: tuple[int, int],
    width: float,
    half_length: float = SCAN_HALF_LENGTH,
) -> torch.Tensor:
    """Bias every scan column towards the place on the retina where it was measured.

    Column x of a horizontal scan of half length h lies at fovea + (s, 0), of a vertical one at
    fovea + (0, s), s = h * (2 (x + 0.5) / X - 1); g = S_fov * exp(-|c_t - place|^2 / width^2),
    c_t the centre of token t. All depths of a column share its place: this is the geometry of
    a B-scan. Where the macula was not found, and for views that are no line through it, the
    bias is that of `attention_bias`.

    Args:
        structure_ntk: (N, T, K) maps in [0, 1].
        views: V keys of VIEW_STRUCTURES.
        eps: as in `attention_bias`.
        scan_grid: (Z, X) queries of a view, row-major.
        width: of the Gaussian, field units.
        half_length: h, field units.

    Returns:
        (N, V * Z * X, T) float32.
    """
    rows, cols = scan_grid
    names = [VIEW_STRUCTURES[_known_view(view)] for view in views]
    plain = attention_bias(structure_ntk, names, eps, queries_per_view=rows * cols)
    field = structure_ntk[..., _FOV].float()[:, None]
    fovea_n2, found_n = macula_center(structure_ntk)
    biases = list(plain.chunk(len(views), 1))
    for position, view in enumerate(views):
        if view in ("macula_h", "macula_v"):
            near_nxt = _near_columns(fovea_n2, view, cols, structure_ntk, half_length, width)
            bias = _log_bias(near_nxt * field, eps).repeat(1, rows, 1)
            biases[position] = torch.where(found_n[:, None, None], bias, biases[position])
    return torch.cat(biases, 1)


def _near_columns(
    fovea_n2: torch.Tensor,
    view: str,
    cols: int,
    structure_ntk: torch.Tensor,
    half_length: float,
    width: float,
) -> torch.Tensor:
    """(N, X, T) closeness of every token to the place of every scan column."""
    device = structure_ntk.device
    along = (torch.arange(cols, device=device, dtype=torch.float32) + 0.5) / cols * 2 - 1
    direction = torch.tensor([1.0, 0.0] if view == "macula_h" else [0.0, 1.0], device=device)
    places_nx2 = fovea_n2[:, None] + half_length * along[:, None] * direction
    centers_t2 = token_centers(structure_ntk.shape[1]).to(device)
    squared = (places_nx2[:, :, None] - centers_t2).square().sum(-1)
    return (-squared / width**2).exp()


def cross_attention_bias(
    structure_ntk: torch.Tensor,
    views: Sequence[str],
    scan_grid: tuple[int, int],
    config: StructureConfig,
) -> torch.Tensor | None:
    """Switch 2 as configured: (N, V * Z * X, T) float32, or None where it is off."""
    eps = config.attention_eps
    if config.attention == "off":
        return None
    if config.attention == "line":
        return line_bias(structure_ntk, views, eps, scan_grid=scan_grid, width=config.line_width)
    names = [VIEW_STRUCTURES[_known_view(view)] for view in views]
    per_view = scan_grid[0] * scan_grid[1]
    return attention_bias(structure_ntk, names, eps, queries_per_view=per_view)


def _log_bias(gain_nqt: torch.Tensor, eps: float) -> torch.Tensor:
    """log(eps + g / max g); 0 everywhere for a query whose gains are all 0, so a key stays."""
    peak = gain_nqt.amax(-1, keepdim=True)
    relative = torch.where(peak > 0, gain_nqt / peak.clamp(min=1e-12), torch.ones_like(gain_nqt))
    return (eps + relative).log()


def _column(structure: str) -> int:
    if structure not in STRUCTURES:
        raise ConfigError(f"unknown structure {structure!r}; use one of {', '.join(STRUCTURES)}")
    return STRUCTURES.index(structure)


def _known_view(view: str) -> str:
    if view not in VIEW_STRUCTURES:
        raise ConfigError(f"unknown view {view!r}; use one of {', '.join(VIEW_STRUCTURES)}")
    return view


def token_centers(num_tokens: int) -> torch.Tensor:
    """(T, 2) float32 centres (x, y) of row-major tokens in field units: the square is [-1, 1].

    Raises:
        ValueError: the tokens do not fill a square.
    """
    side = round(num_tokens**0.5)
    if side * side != num_tokens:
        raise ValueError(f"{num_tokens} tokens do not fill a square")
    axis = (torch.arange(side, dtype=torch.float32) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], 1)


def macula_center(structure_ntk: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fovea as the centroid of the macula's map.

    Returns:
        (N, 2) float32 (x, y) in field units, and (N,) bool: False where the map is uniform
        or empty, so that the centroid means nothing.
    """
    macula, field = structure_ntk[..., _MACULA].float(), structure_ntk[..., _FOV].float()
    centers = token_centers(macula.shape[1]).to(macula.device)
    center = macula @ centers / macula.sum(1, keepdim=True).clamp(min=1e-12)
    # Weighted by the field, so that a uniform map, c * S_fov, has exactly the mean c.
    mean = (macula * field).sum(1) / field.square().sum(1).clamp(min=1e-12)
    return center, macula.amax(1) > _LOCATED_CONTRAST * mean


def patch_loss_weights(
    structure_ntk: torch.Tensor, scored_nt: torch.Tensor, alpha: float, config: StructureConfig
) -> torch.Tensor:
    """Weights 1 + alpha * focus of the scored patches, with mean 1 over them in every image.

    The total weight of an image is the number of its scored patches whatever alpha is, so the
    switch moves weight and does not change the learning rate.

    Args:
        structure_ntk: (N, T, K) maps in [0, 1].
        scored_nt: (N, T) bool, patches that enter the loss.
        alpha: at least 0.
        config: `focus`.

    Returns:
        (N, T) float32, 0 where not scored.
    """
    scored = scored_nt.float()
    weight = (1 + alpha * _focus(structure_ntk, config)) * scored
    return weight * scored.sum(1, keepdim=True) / weight.sum(1, keepdim=True).clamp(min=1e-12)


def structure_loss(
    logits_ntk: torch.Tensor, structure_ntk: torch.Tensor, quality_nk: torch.Tensor
) -> torch.Tensor:
    """Binary cross-entropy of K sigmoids a token against the soft maps, in float32.

    Weight of a token: the structure's quality (0 = not found = not learned) times the field of
    view at the token; the field's own map is scored everywhere.

    Args:
        logits_ntk: (N, T, K) predictions before the sigmoid.
        structure_ntk: (N, T, K) maps in [0, 1].
        quality_nk: (N, K) confidences in [0, 1].

    Returns:
        Scalar float32; 0, with a gradient of 0, where nothing has weight.
    """
    with torch.autocast(logits_ntk.device.type, enabled=False):
        target = structure_ntk.float()
        where = target[..., _FOV, None].expand(target.shape).clone()
        where[..., _FOV] = 1.0
        weight = where * quality_nk.float()[:, None]
        cost = functional.binary_cross_entropy_with_logits(
            logits_ntk.float(), target, reduction="none"
        )
        return (cost * weight).sum() / weight.sum().clamp(min=1e-6)
