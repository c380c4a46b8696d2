"""The student as one ONNX file: uint8 picture in, everything else inside the graph.

    image_nhwc -> Cast -> Sub 128 -> Transpose -> convolutions -> logits, gradability_logit,
                                                                 embedding, evidence

The division by 64 of training is folded into the first convolution; it is a power of two,
so no weight is rounded. BatchNorm is folded into the convolution before it. Zero padding
means mid grey before and after, so borders come out the same.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from calibration.onnx_graph import load_model, save_model
from distill.student import Student
from edge_runtime.errors import ParityError
from edge_runtime.onnx_safety import check_onnx
from train.arrays import PIXEL_CENTER, PIXEL_SCALE

if TYPE_CHECKING:
    import onnx

__all__ = ["INPUT_NAME", "OUTPUT_NAMES", "ExportGraph", "export_onnx", "fold_batch_norms"]

INPUT_NAME = "image_nhwc"
OUTPUT_NAMES = ("logits", "gradability_logit", "embedding", "evidence")
_OPSET, _IR_VERSION = 17, 8
_ALLOWED_OPS = frozenset({"Add", "Cast", "Conv", "ReduceMean", "Relu", "Sub", "Transpose"})


class ExportGraph(nn.Module):
    """The student as it is exported, with the uint8 front and everything folded."""

    def __init__(self, student: Student) -> None:
        """Copy and fold; the student itself is left as it is."""
        super().__init__()
        student = copy.deepcopy(student).eval()
        example = torch.zeros(1, 3, student.config.size_px, student.config.size_px)
        fold_batch_norms(student.backbone, example)
        first = next(m for m in student.backbone.modules() if isinstance(m, nn.Conv2d))
        with torch.no_grad():
            first.weight /= PIXEL_SCALE
        self.backbone, self.evidence = student.backbone, student.evidence
        self.gradability = student.gradability

    def forward(self, image_nhwc: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(1, S, S, 3) uint8 RGB -> the tensors of `OUTPUT_NAMES`, float32."""
        centred = image_nhwc.to(torch.float32) - PIXEL_CENTER
        features = self.backbone(centred.permute(0, 3, 1, 2))
        evidence = self.evidence(features)
        return (
            evidence.mean((2, 3)),
            self.gradability(features).mean((2, 3)),
            features.mean((2, 3)),
            evidence,
        )


def fold_batch_norms(model: nn.Module, example: torch.Tensor) -> int:
    """Fold every BatchNorm into the convolution that feeds it, in place.

    Which one that is, is seen by running `example` through the model: no list of a
    library's block types to keep up to date.

    Returns:
        How many were folded.

    Raises:
        ParityError: a BatchNorm is not fed by a convolution.
    """
    pairs = _conv_norm_pairs(model.eval(), example)
    for conv_name, norm_name in pairs.items():
        conv, norm = model.get_submodule(conv_name), model.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        _replace(model, conv_name, fuse_conv_bn_eval(conv, norm))
        _replace(model, norm_name, nn.Identity())
    left = [name for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)]
    if left:
        raise ParityError(f"{left[0]} is not fed by a convolution alone; it cannot be folded")
    return len(pairs)


def _conv_norm_pairs(model: nn.Module, example: torch.Tensor) -> dict[str, str]:
    """Convolution name -> name of the BatchNorm that read exactly its output."""
    made: dict[int, tuple[str, torch.Tensor]] = {}
    pairs: dict[str, str] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                made[id(output)] = (name, output)  # held, so that no other tensor gets its id
            elif isinstance(module, nn.BatchNorm2d) and id(inputs[0]) in made:
                pairs[made[id(inputs[0])][0]] = name

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in model.named_modules()]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return pairs


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


def export_onnx(student: Student, *, metadata: Mapping[str, str]) -> bytes:
    """Write the student as ONNX.

    Args:
        student: in any mode; not changed.
        metadata: written into the file for whoever opens it alone; nothing reads it back.

    Returns:
        The bytes of one self-contained file, opset 17, IR version 8.

    Raises:
        ParityError: the exporter wrote another graph than the one promised above.
        BundleFormatError: the file would not be accepted by the runtime.
    """
    size_px = student.config.size_px
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is chosen on purpose: it writes plain opset 17.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            ExportGraph(student),
            (torch.zeros((1, size_px, size_px, 3), dtype=torch.uint8),),
            stream,  # type: ignore[arg-type]  # its annotation forgets file objects
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT_NAME],
            output_names=list(OUTPUT_NAMES),
        )
    data = _finish(stream.getvalue(), metadata)
    check_onnx(data, name="model.fp32.onnx")
    return data


def _finish(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Set versions and metadata, and check that the graph is the one that was meant."""
    import onnx

    # The exporter shares equal biases through Identity nodes; `load_model` resolves them.
    model = load_model(data)
    model.ir_version = _IR_VERSION
    model.producer_name = "edge-screen"
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    _check_graph(model)
    return save_model(model)


def _check_graph(model: onnx.ModelProto) -> None:
    opsets = {item.domain: item.version for item in model.opset_import}
    if opsets != {"": _OPSET}:
        raise ParityError(f"the exporter wrote opsets {opsets}, not {_OPSET}; pin torch and onnx")
    names = tuple(output.name for output in model.graph.output)
    inputs = [item.name for item in model.graph.input]
    if names != OUTPUT_NAMES or inputs != [INPUT_NAME]:
        raise ParityError(f"the graph has inputs {inputs} and outputs {names}; see OUTPUT_NAMES")
    foreign = sorted({node.op_type for node in model.graph.node} - _ALLOWED_OPS)
    if foreign:
        raise ParityError(
            f"the graph has operators {', '.join(foreign)}, which a folded student does not need; "
            "INT8 would leave them in float"
        )
