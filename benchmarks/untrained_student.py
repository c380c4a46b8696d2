"""Write an untrained timm network as an edge-screen student, for benchmarks of speed.

    python benchmarks/untrained_student.py mobilenetv4_conv_small 224 student_224px.onnx

Weights are random; BatchNorm holds the statistics of random pictures, so that activations have
the spread of a trained network's. Its answers mean nothing.
"""

from __future__ import annotations

import io
import sys
import warnings
from pathlib import Path

import torch  # noqa: TID253
from torch import nn  # noqa: TID253

from export.to_onnx import INPUT_NAME, OUTPUT_NAMES
from train.arrays import PIXEL_CENTER, PIXEL_SCALE, normalize_cfp
from train.timm_door import create_untrained

_NUM_LABELS = 4


class UntrainedStudent(nn.Module):
    """Backbone and the two heads of a student; takes uint8 pictures as the exported graph does."""

    def __init__(self, arch: str, size_px: int) -> None:
        """Build and measure BatchNorm statistics; the exporter folds them."""
        super().__init__()
        torch.manual_seed(0)
        self.backbone = create_untrained(arch, num_classes=0, global_pool="")
        pictures = torch.randint(0, 256, (4, size_px, size_px, 3), dtype=torch.uint8)
        batch = normalize_cfp(pictures)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            width = self.backbone.train()(batch).shape[1]
            next(
                m for m in self.backbone.modules() if isinstance(m, nn.Conv2d)
            ).weight /= PIXEL_SCALE
        self.evidence = nn.Conv2d(width, _NUM_LABELS, 1)
        self.gradability = nn.Conv2d(width, 1, 1)

    def forward(self, image_nhwc: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(1, S, S, 3) uint8 -> the outputs of an exported student."""
        centred = image_nhwc.to(torch.float32) - PIXEL_CENTER
        features = self.backbone(centred.permute(0, 3, 1, 2))
        evidence = self.evidence(features)
        gradability = self.gradability(features).mean((2, 3))
        return evidence.mean((2, 3)), gradability, features.mean((2, 3)), evidence


def main() -> None:
    """Write the file."""
    from calibration.onnx_graph import load_model, save_model

    arch, size_px, path = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            UntrainedStudent(arch, size_px).eval(),
            (torch.zeros((1, size_px, size_px, 3), dtype=torch.uint8),),
            stream,
            dynamo=False,
            opset_version=17,
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
        )
    model = load_model(stream.getvalue())
    model.ir_version = 8
    path.write_bytes(save_model(model))


if __name__ == "__main__":
    main()
