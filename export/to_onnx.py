"""The student as one ONNX file: uint8 picture in, everything else inside the graph.

    image_nhwc -> Cast -> Sub 128 -> Transpose -> convolutions -> logits, gradability_logit,
                                                                 embedding, evidence

What training needs and a camera does not is folded first (`export.fold`). Zero padding
means mid grey before and after, so borders come out the same. What was written is read
again: opset, operators, names, no BatchNorm, no data in other files, the size.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn

from calibration.onnx_graph import fold_constants, load_model, save_model
from calibration.tensorrt_versions import unsupported_operators
from distill.student import Student
from edge_runtime.bundle_parts.onnx_safety import check_onnx
from edge_runtime.errors import ParityError
from export.fold import fold_input_scale, simplify_backbone
from train.arrays import PIXEL_CENTER, PIXEL_SCALE

if TYPE_CHECKING:
    import onnx

__all__ = ["INPUT_NAME", "MAX_SIZE_MIB", "OUTPUT_NAMES", "ExportGraph", "export_onnx"]

INPUT_NAME = "image_nhwc"
OUTPUT_NAMES = ("logits", "gradability_logit", "embedding", "evidence")
#: A camera stores and hashes every file of a bundle; ResNet-34, the largest tier, has 82 MiB.
MAX_SIZE_MIB = 100.0
_OPSET, _IR_VERSION = 17, 8
_MIB = 1024 * 1024


class ExportGraph(nn.Module):
    """The student as it is exported, with the uint8 front and everything folded."""

    def __init__(self, student: Student) -> None:
        """Copy and fold; the student itself is left as it is."""
        super().__init__()
        student = copy.deepcopy(student).eval()
        example = torch.zeros(1, 3, student.config.size_px, student.config.size_px)
        student.backbone = simplify_backbone(student.backbone, example)
        fold_input_scale(student.backbone, PIXEL_SCALE)
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


def export_onnx(
    student: Student, *, metadata: Mapping[str, str], max_size_mib: float = MAX_SIZE_MIB
) -> bytes:
    """Write the student as ONNX.

    Args:
        student: in any mode; not changed.
        metadata: written into the file for whoever opens it alone; nothing reads it back.
        max_size_mib: a larger file is refused.

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
    _check_written(data, max_size_mib)
    return data


def _finish(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Set versions and metadata, and check shapes and types."""
    import onnx

    # The exporter shares equal biases through Identity nodes; `load_model` resolves them.
    model = load_model(data)
    fold_constants(model)
    _state_shapes(model)
    model.ir_version = _IR_VERSION
    model.producer_name = "edge-screen"
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    return save_model(model)


def _state_shapes(model: onnx.ModelProto) -> None:
    """Give every output its static shape; the exporter leaves it open behind a computed pad."""
    import onnx

    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    for output, known in zip(model.graph.output, inferred.graph.output, strict=True):
        output.CopyFrom(known)
        if not all(axis.dim_value > 0 for axis in output.type.tensor_type.shape.dim):
            raise ParityError(f"the shape of {output.name} is not static; give a fixed size_px")


def _check_written(data: bytes, max_size_mib: float) -> None:
    """Read the bytes again and refuse another graph than the one that was meant."""
    import onnx

    model = onnx.load_model_from_string(data)
    opsets = {item.domain: item.version for item in model.opset_import}
    if opsets != {"": _OPSET}:
        raise ParityError(f"the exporter wrote opsets {opsets}, not {_OPSET}; pin torch and onnx")
    _check_graph(model.graph)
    if len(data) > max_size_mib * _MIB:
        raise ParityError(
            f"the file has {len(data) / _MIB:.1f} MiB, more than {max_size_mib:g}; take a smaller "
            "student or raise the budget (--max-size-mib)"
        )


def _check_graph(graph: onnx.GraphProto) -> None:
    names = tuple(output.name for output in graph.output)
    inputs = [item.name for item in graph.input]
    if names != OUTPUT_NAMES or inputs != [INPUT_NAME]:
        raise ParityError(f"the graph has inputs {inputs} and outputs {names}; see OUTPUT_NAMES")
    kinds = {node.op_type for node in graph.node}
    if "BatchNormalization" in kinds:
        raise ParityError("a BatchNorm was not folded; it must be fed by a convolution alone")
    foreign = unsupported_operators(kinds)
    if foreign:
        raise ParityError(
            f"the graph has operators that not every TensorRT builds: {', '.join(foreign)}; take "
            "an architecture of the catalogue"
        )
