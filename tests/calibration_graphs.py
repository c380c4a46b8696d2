"""Small students as ONNX graphs in the form that export writes, for the INT8 tests (no torch)."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

LABELS = ("macular_edema", "glaucoma")


class GraphBuilder:
    """Collects nodes and initialisers; every method returns the name of what it made."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.default_rng(seed)
        self.nodes: list = []
        self.tensors: list = []

    def constant(self, name: str, value: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(value, name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=f"/{output}", **attributes))
        return output

    def conv(self, x, name, c_in, c_out, kernel=3, stride=1, gain=1.0, bias=True, groups=1) -> str:
        shape = (c_out, c_in // groups, kernel, kernel)
        fan_in = c_in // groups * kernel * kernel
        weight = self.generator.normal(0, gain * np.sqrt(2 / fan_in), shape).astype(np.float32)
        inputs = [x, self.constant(f"{name}.weight", weight)]
        if bias:
            value = self.generator.normal(0, 0.1, c_out).astype(np.float32)
            inputs.append(self.constant(f"{name}.bias", value))
        pad = kernel // 2
        return self.node(
            "Conv", inputs, name, kernel_shape=[kernel] * 2, strides=[stride] * 2,
            pads=[pad] * 4, group=groups,
        )  # fmt: skip

    def block(self, x: str, name: str, c_in: int, c_out: int, stride: int) -> str:
        """A BasicBlock: two 3x3 convolutions and a residual Add."""
        y = self.conv(x, f"{name}.conv1", c_in, c_out, stride=stride)
        y = self.node("Relu", [y], f"{name}.relu1")
        y = self.conv(y, f"{name}.conv2", c_out, c_out, gain=0.5)
        if stride > 1 or c_in != c_out:
            x = self.conv(x, f"{name}.down", c_in, c_out, kernel=1, stride=stride)
        return self.node("Relu", [self.node("Add", [y, x], f"{name}.add")], f"{name}.relu2")


def input_chain(b: GraphBuilder, mean: float = 128.0) -> str:
    x = b.node("Cast", ["image_nhwc"], "image_float", to=TensorProto.FLOAT)
    x = b.node("Sub", [x, b.constant("mean", np.array(mean, np.float32))], "image_centred")
    return b.node("Transpose", [x], "image_nchw", perm=[0, 3, 1, 2])


def heads(b: GraphBuilder, x: str, width: int, num_labels: int) -> None:
    evidence = b.conv(x, "evidence", width, num_labels, kernel=1)
    b.node("ReduceMean", [evidence], "logits", axes=[2, 3], keepdims=0)
    embedding = b.node("ReduceMean", [x], "embedding", axes=[2, 3], keepdims=0)
    weight = b.constant("grade.weight", b.generator.normal(0, 0.3, (1, width)).astype(np.float32))
    b.node("Gemm", [embedding, weight], "gradability_logit", transB=1)


def finish(b: GraphBuilder, size_px: int, num_labels: int, width: int, opset: int = 17) -> bytes:
    image = helper.make_tensor_value_info("image_nhwc", TensorProto.UINT8, [1, size_px, size_px, 3])
    shapes = {
        "logits": [1, num_labels],
        "gradability_logit": [1, 1],
        "embedding": [1, width],
        "evidence": [1, num_labels, size_px // 8, size_px // 8],
    }
    outputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    graph = helper.make_graph(b.nodes, "student", [image], outputs, b.tensors)
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def build_student(seed: int = 0, size_px: int = 32, num_labels: int = len(LABELS)) -> bytes:
    """uint8 image -> stem, MaxPool, two residual blocks, evidence, pooled logits, gradability."""
    b = GraphBuilder(seed)
    x = b.node("Relu", [b.conv(input_chain(b), "stem", 3, 16, 7, 2, gain=1 / 64)], "stem.relu")
    x = b.node("MaxPool", [x], "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    x = b.block(x, "layer1", 16, 16, 1)
    heads(b, b.block(x, "layer2", 16, 32, 2), 32, num_labels)
    return finish(b, size_px, num_labels, 32)


def images(count: int = 4, size_px: int = 32, seed: int = 1) -> np.ndarray:
    """(N, S, S, 3) uint8: noise, plus a black and a white image that saturate the input."""
    pictures = np.random.default_rng(seed).integers(0, 256, (count, size_px, size_px, 3))
    pictures[0], pictures[-1] = 0, 255
    return pictures.astype(np.uint8)
