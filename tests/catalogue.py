"""The catalogue's backbones as students with random weights and settled BatchNorm (needs torch)."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch

from train.arrays import normalize_cfp
from train.timm_door import create_untrained

FAMILIES = (
    "efficientnet_es",
    "efficientnet_lite0",
    "hgnetv2_b0",
    "hgnetv2_b2",
    "mobilenetv4_conv_medium",
    "mobilenetv4_conv_small",
    "regnetx_016",
    "resnet18",
    "resnet34",
)


@dataclass(frozen=True)
class Shape:
    size_px: int


class AnyStudent(torch.nn.Module):
    """What export needs of a student, around any backbone."""

    def __init__(self, arch: str, size_px: int, labels: tuple[str, ...] = ("a", "b", "c")) -> None:
        super().__init__()
        self.config, self.label_names = Shape(size_px), labels
        self.backbone = create_untrained(arch, num_classes=0, global_pool="")
        with torch.no_grad():
            width = self.backbone.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
        self.evidence = torch.nn.Conv2d(width, len(labels), 1)
        self.gradability = torch.nn.Conv2d(width, 1, 1)

    def forward(self, cfp_nchw: torch.Tensor) -> SimpleNamespace:
        features = self.backbone(cfp_nchw)
        evidence = self.evidence(features)
        return SimpleNamespace(
            logits=evidence.mean((2, 3)),
            gradability_logit=self.gradability(features).mean((2, 3)),
            embedding=features.mean((2, 3)),
            evidence=evidence,
        )


def make_student(arch: str, size_px: int, seed: int = 0) -> AnyStudent:
    """Random weights, affines away from their start, statistics of one batch of smooth noise."""
    torch.manual_seed(seed)
    student = AnyStudent(arch, size_px)
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.normal_(module.bias, std=0.3)
        if type(module).__name__ == "LearnableAffineBlock":
            torch.nn.init.uniform_(module.scale, 0.6, 1.4)
            torch.nn.init.normal_(module.bias, std=0.2)
    with torch.no_grad():
        student.train()
        for step in range(2):
            student(normalize_cfp(torch.from_numpy(pictures(6, size_px, seed=seed + step))))
    return student.eval()


def pictures(count: int, size_px: int, seed: int = 0) -> np.ndarray:
    """(N, S, S, 3) uint8: coarse colour blotches with fine noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 225, (count, 8, 8, 3))
    tiled = coarse.repeat(size_px // 8, axis=1).repeat(size_px // 8, axis=2)
    return np.clip(tiled + rng.normal(0, 12, tiled.shape), 0, 255).astype(np.uint8)
