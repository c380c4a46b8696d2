"""Segmentation as a downstream task: vessels, disc, cup and lesions by one decoder.

A few hundred drawn masks teach a decoder on top of the encoder, which is fine-tuned at a
fraction of the rate. A linear read-out instead would say nothing: untrained features give
one as good, from position alone. Nothing is chosen on the test split: the threshold is fixed.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edge_runtime.errors import ConfigError, DataError
from edge_runtime.preprocess import PreprocessSpec
from train.arrays import circle_mask, normalize_cfp
from train.data.index import MASK_COLUMNS, DataIndex, EyeVisit
from train.data.model_masks import ModelMasks, load_model_masks
from train.dataset_arrays import SplitArrays
from train.device import CPU, device_of
from train.encoder import CfpEncoder
from train.labels import GRADABLE
from train.schedule import Progress, StepGuard, batches, cosine_rate, seed_everything
from train.segmentation_losses import dice_loss, pixel_bce
from train.segmentation_metrics import cldice, dice, false_positive_share, hd95
from train.segmentation_net import SegmentationNet
from train.tasks.data import TaskData

__all__ = [
    "MaskedEyes",
    "SegmentationMaterial",
    "SegmentationResult",
    "SegmentationSettings",
    "load_segmentation_material",
    "run_segmentation",
]

FloatArray = npt.NDArray[np.float64]
_TUBULAR = "vessels"  # clDice is about lines; discs and lesions have none


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings:
    """All settings of the task; the same for every encoder that is compared.

    Attributes:
        num_labeled: training eyes with masks, drawn by the seed; 0 = all.
        num_steps: optimiser steps.
        batch_size: eyes a step.
        learning_rate: peak rate of the decoder.
        encoder_rate_scale: the encoder's rate as a fraction of the decoder's; 0 freezes it.
        weight_decay: AdamW's.
        decoder_width: channels of the decoder, a multiple of 4.
        threshold: a pixel is inside from this probability on.
        bfloat16: run the networks in bfloat16; the losses stay float32.
    """

    num_labeled: int = 300
    num_steps: int = 240
    batch_size: int = 16
    learning_rate: float = 3e-3
    encoder_rate_scale: float = 0.3
    weight_decay: float = 0.02
    decoder_width: int = 24
    threshold: float = 0.5
    bfloat16: bool = True

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        if self.num_labeled < 0 or self.num_steps < 1 or self.batch_size < 1:
            raise ConfigError(
                f"num_labeled {self.num_labeled} must be >= 0, num_steps {self.num_steps} and "
                f"batch_size {self.batch_size} >= 1"
            )
        if not 0 < self.learning_rate < 1 or not 0 <= self.encoder_rate_scale <= 1:
            raise ConfigError(
                f"learning_rate {self.learning_rate} must be in (0, 1) and encoder_rate_scale "
                f"{self.encoder_rate_scale} in [0, 1]"
            )
        if not 0 < self.threshold < 1:
            raise ConfigError(f"threshold {self.threshold} must be in (0, 1)")


@dataclass(frozen=True, kw_only=True)
class SegmentationResult:
    """One target on the test eyes that have a mask of it.

    Attributes:
        target: mask column.
        dice_n: (N,) Dice; NaN where the reference is empty.
        hd95_n: (N,) HD95 in pixels of the network's input; NaN where the reference is empty.
        cldice_n: (N,) centre-line Dice, of vessels only; None for other targets.
        false_positive_n: (N,) share of the field predicted where the reference is empty;
            NaN where it is not. Dice is undefined there, and this is what went wrong.
        num_images: N.
        num_empty: of them with an empty reference, left out of the mean Dice.
        patient_ids: (N,) str.
        seconds: wall-clock time of training, prediction and scoring all targets together.
    """

    target: str
    dice_n: FloatArray
    hd95_n: FloatArray
    cldice_n: FloatArray | None
    false_positive_n: FloatArray
    num_images: int
    num_empty: int
    patient_ids: npt.NDArray[np.str_]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class MaskedEyes:
    """Eyes of one split with their masks, row by row.

    Attributes:
        images_nhwc: (N, S, S, 3) uint8.
        masks: of the same N eyes.
        patient_ids: (N,) str.
    """

    images_nhwc: npt.NDArray[np.uint8]
    masks: ModelMasks
    patient_ids: npt.NDArray[np.str_]


@dataclass(frozen=True, kw_only=True)
class SegmentationMaterial:
    """What the task reads from disk; load it once and share it between encoders.

    Attributes:
        train: labelled training eyes.
        test: scored eyes.
        num_labeled: asked for when it was loaded.
        seed: that drew the training eyes.
    """

    train: MaskedEyes
    test: MaskedEyes
    num_labeled: int
    seed: int


def load_segmentation_material(
    data: TaskData, targets: Sequence[str], *, num_labeled: int, seed: int
) -> SegmentationMaterial:
    """Read the masks of the drawn training eyes and of all test eyes.

    An eye labelled ungradable is left out of both: what cannot be seen is neither learnt
    nor scored.

    Raises:
        ConfigError: a target is no mask column.
        DataError: too few training eyes, or no test eye, has a mask.
    """
    train = _candidates(data.index, data.train, "train", targets)
    if num_labeled > len(train):
        raise DataError(
            f"{num_labeled} training eyes with masks were asked for, {len(train)} gradable ones "
            "have any; ask for fewer, or 0 for all"
        )
    drawn = np.random.default_rng(seed).permutation(len(train))[: num_labeled or None]
    test = _candidates(data.index, data.test, "test", targets)
    spec = PreprocessSpec(size_px=data.size_px)
    return SegmentationMaterial(
        train=_masked(data.train, [train[i] for i in np.sort(drawn)], targets, spec),
        test=_masked(data.test, test, targets, spec),
        num_labeled=num_labeled,
        seed=seed,
    )


def _candidates(
    index: DataIndex, split: SplitArrays, name: str, targets: Sequence[str]
) -> list[tuple[int, EyeVisit]]:
    """(row of the split, visit) of the gradable eyes with at least one of the masks."""
    left_out = {row_number for row_number, _ in split.excluded}
    visits = [visit for visit in index.split(name) if visit.row_number not in left_out]
    who = [(visit.patient_id, visit.eye) for visit in visits]
    if who != list(zip(split.patient_ids.tolist(), split.eyes.tolist(), strict=True)):
        raise DataError(
            f"the {len(split)} eyes of split '{name}' are not the {len(visits)} usable visits of "
            "the index in its order; load the split whole"
        )
    gradable = (
        split.label(GRADABLE) != 0
        if GRADABLE in split.label_names
        else np.ones(len(split), np.bool_)
    )
    found = [
        (row, visit)
        for row, visit in enumerate(visits)
        if gradable[row] and any(target in visit.files for target in targets)
    ]
    if not found:
        raise DataError(
            f"split '{name}' has no gradable eye with a mask of {', '.join(targets)}; name "
            f"targets that the data set has (of {', '.join(MASK_COLUMNS)})"
        )
    return found


def _masked(
    split: SplitArrays,
    chosen: Sequence[tuple[int, EyeVisit]],
    targets: Sequence[str],
    spec: PreprocessSpec,
) -> MaskedEyes:
    rows = np.array([row for row, _ in chosen])
    return MaskedEyes(
        images_nhwc=split.images_nhwc[rows],
        masks=load_model_masks([visit for _, visit in chosen], targets, spec),
        patient_ids=split.patient_ids[rows],
    )


def run_segmentation(
    encoder: CfpEncoder,
    data: TaskData,
    settings: SegmentationSettings,
    *,
    targets: Sequence[str],
    seed: int,
    progress: Progress | None = None,
    material: SegmentationMaterial | None = None,
    device: torch.device | None = None,
) -> dict[str, SegmentationResult]:
    """Teach a decoder, predict the test eyes, score them.

    Args:
        encoder: left as it is; a copy is fine-tuned.
        data: all splits; the validation split is not touched.
        settings: the settings.
        targets: mask columns, learnt together.
        seed: draws training eyes, the decoder's weights, batches and flips.
        progress: called with (steps done, steps, text).
        material: read before with the same targets, `num_labeled` and seed.
        device: where the networks run; None = the CPU.

    Returns:
        A result for each target.

    Raises:
        ConfigError: a target is no mask column, or `material` was read for something else.
        DataError: too few training eyes, or no test eye, has a mask.
    """
    if material is None:
        material = load_segmentation_material(
            data, targets, num_labeled=settings.num_labeled, seed=seed
        )
    read_for = (material.num_labeled, material.seed, material.test.masks.names)
    if read_for != (settings.num_labeled, seed, tuple(targets)):
        raise ConfigError(
            f"the material was read for (num_labeled, seed, targets) {read_for}, not for "
            f"{(settings.num_labeled, seed, tuple(targets))}; read it again"
        )
    started = time.perf_counter()
    net = _teach(copy.deepcopy(encoder), material.train, settings, seed, progress, device or CPU)
    predicted = _predict(net, material.test.images_nhwc, settings)
    scored = _score(predicted, material.test)
    seconds = time.perf_counter() - started
    return {
        name: SegmentationResult(target=name, seconds=seconds, **one)
        for name, one in scored.items()
    }


def _teach(
    encoder: CfpEncoder,
    eyes: MaskedEyes,
    settings: SegmentationSettings,
    seed: int,
    progress: Progress | None,
    device: torch.device,
) -> SegmentationNet:
    """Train decoder and encoder together on BCE + Dice; half of the eyes are mirrored."""
    generator = seed_everything(seed)
    shares = eyes.masks.masks_ncss.mean((0, 2, 3)).tolist()
    net = SegmentationNet(encoder, shares, width=settings.decoder_width)
    net.to(device).train()
    # BatchNorm keeps the statistics of pretraining: batches here are few and small.
    net.encoder.eval()
    guard = StepGuard(_optimizer(net, settings))
    images = torch.from_numpy(eyes.images_nhwc)
    masks = torch.from_numpy(eyes.masks.masks_ncss)
    known = torch.from_numpy(eyes.masks.present_nc)
    drawn = batches(len(images), settings.batch_size, settings.num_steps, seed)
    for step, picked in enumerate(drawn):
        mirrored = torch.rand(len(picked), generator=generator) < 0.5
        cfp = _mirror(normalize_cfp(images[picked]), mirrored).to(device)
        drawn_masks = _mirror(masks[picked], mirrored).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
            logits = net(cfp)
        there = known[picked].to(device)
        loss = pixel_bce(logits, drawn_masks, there) + dice_loss(logits, drawn_masks, there)
        guard.step(loss, cosine_rate(step, settings.num_steps, settings.learning_rate))
        if progress is not None and ((step + 1) % 20 == 0 or step + 1 == settings.num_steps):
            progress(step + 1, settings.num_steps, f"loss {float(loss.detach()):.3f}")
    return net.eval()


def _optimizer(net: SegmentationNet, settings: SegmentationSettings) -> torch.optim.Optimizer:
    own = [p for name, p in net.named_parameters() if not name.startswith("encoder.")]
    groups = [{"params": own, "scale": 1.0}]
    net.frozen = settings.encoder_rate_scale == 0
    net.encoder.requires_grad_(not net.frozen)
    if not net.frozen:
        scale = settings.encoder_rate_scale
        groups.append({"params": list(net.encoder.parameters()), "scale": scale})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _mirror(batch_ncss: torch.Tensor, mirrored_n: torch.Tensor) -> torch.Tensor:
    """Flip the chosen images left to right: OD looks like OS, and the anatomy stays right."""
    return torch.where(mirrored_n[:, None, None, None], batch_ncss.flip(-1), batch_ncss)


def _predict(
    net: SegmentationNet,
    images_nhwc: npt.NDArray[np.uint8],
    settings: SegmentationSettings,
    *,
    batch_size: int = 64,
) -> npt.NDArray[np.bool_]:
    """(N, C, S, S) bool, False outside the field."""
    parts, device = [], device_of(net)
    cut = float(np.log(settings.threshold / (1 - settings.threshold)))
    field = circle_mask(images_nhwc.shape[1]).numpy()
    with torch.inference_mode():
        for start in range(0, len(images_nhwc), batch_size):
            batch = torch.from_numpy(images_nhwc[start : start + batch_size]).to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.bfloat16):
                logits = net(normalize_cfp(batch))
            parts.append((logits >= cut).cpu().numpy() & field)
    return np.concatenate(parts)


def _score(predicted_ncss: npt.NDArray[np.bool_], eyes: MaskedEyes) -> dict[str, dict[str, Any]]:
    field = circle_mask(predicted_ncss.shape[-1]).numpy()
    scored: dict[str, dict[str, Any]] = {}
    for k, name in enumerate(eyes.masks.names):
        there = eyes.masks.present_nc[:, k]
        guess, truth = predicted_ncss[there, k], eyes.masks.masks_ncss[there, k]
        scored[name] = {
            "dice_n": dice(guess, truth),
            "hd95_n": hd95(guess, truth),
            "cldice_n": cldice(guess, truth) if name == _TUBULAR else None,
            "false_positive_n": false_positive_share(guess, truth, field),
            "num_images": len(truth),
            "num_empty": int((~truth.any((1, 2))).sum()),
            "patient_ids": eyes.patient_ids[there],
        }
    return scored
