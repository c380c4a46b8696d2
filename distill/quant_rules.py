"""What INT8 does to each kind of block, where that was seen, and what to do: data.

Figures in `reason` are of the sources named there, not of this repository.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RULES", "Rule"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One kind of block.

    Attributes:
        name: as in a finding.
        weight: 'refuse': accuracy or all speed is usually lost; 'note': worth knowing.
        reason: what happens, with its source.
        remedy: what to do.
    """

    name: str
    weight: str
    reason: str
    remedy: str


RULES = {
    one.name: one
    for one in (
        Rule(
            name="squeeze_excite",
            weight="refuse",
            reason="channel gates multiply maps by values of another range and leave the "
            "integers; EfficientNet-B0 fell from 77.7 to 47 % top-1 (Sony MCT issue 771)",
            remedy="take the variant without it (efficientnet_es, efficientnet_lite0)",
        ),
        Rule(
            name="silu",
            weight="refuse",
            reason="its small negative lobe vanishes in 8 bits and no fused INT8 kernel exists; "
            "YOLOv5s fell from mAP 0.362 to 0.054 (TensorRT issue 1114)",
            remedy="take a ReLU network, or train with ReLU in its place",
        ),
        Rule(
            name="gelu",
            weight="refuse",
            reason="it runs in float between dequantise and quantise: INT8 fastvit_t8 took 1.6 "
            "times the FP32 time in ONNX Runtime",
            remedy="take a ReLU network",
        ),
        Rule(
            name="hard_swish",
            weight="refuse",
            reason="as SiLU: mobilenetv3_large about 60 instead of 76 % (Brevitas issue 1341)",
            remedy="take mobilenetv2_100 or mobilenetv4_conv_small, which have ReLU",
        ),
        Rule(
            name="sigmoid_gate",
            weight="refuse",
            reason="a gate between 0 and 1 has few integer steps where it matters, and stays float",
            remedy="take a network without gates",
        ),
        Rule(
            name="layer_norm",
            weight="refuse",
            reason="it cannot be folded into a convolution and must stay in float (TensorRT issue "
            "4084)",
            remedy="take a network with BatchNorm, which folds away",
        ),
        Rule(
            name="attention",
            weight="refuse",
            reason="softmax stays float and INT8 is slower than FP16 (TensorRT issues 4180, 4242, "
            "4273)",
            remedy="keep attention in the teacher; give the student convolutions",
        ),
        Rule(
            name="reparameterized",
            weight="refuse",
            reason="merged branches have weights of very different size: RepVGG loses over 20 "
            "points after training (QARepVGG, arXiv 2212.01593)",
            remedy="take a plain network, or merge the branches first and train with QAT",
        ),
        Rule(
            name="learnable_affine",
            weight="note",
            reason="scale and shift after ReLU would keep the convolution before it in float; "
            "export folds those of HGNetV2 exactly, but QAT cannot train through them",
            remedy="look at float_nodes of the bundle; take hgnetv2_b4 or larger if QAT is wanted",
        ),
        Rule(
            name="depthwise_multiplier",
            weight="refuse",
            reason="several outputs an input channel have no INT8 kernel of their own: four such "
            "convolutions were 55 % of INT8 fastvit_t8's time, which was slower than FP32",
            remedy="take a network of dense or plain depthwise convolutions",
        ),
        Rule(
            name="grouped",
            weight="note",
            reason="groups keep their accuracy (RegNetX) and not the speed: regnetz_005 ran at "
            "0.77 times its FP32 speed in ONNX Runtime",
            remedy="take dense convolutions where latency decides",
        ),
        Rule(
            name="depthwise",
            weight="note",
            reason="one weight range a channel and few products: no faster in INT8, and the worst "
            "case for several heads at once (ModelOpt issue 869)",
            remedy="look at the INT8 gate; if it refuses: edge-screen distill --qat",
        ),
        Rule(
            name="narrow",
            weight="note",
            reason="output channels that are no multiple of 8 stay in float",
            remedy="choose widths in multiples of 8",
        ),
        Rule(
            name="pooling",
            weight="note",
            reason="a pooled tensor between convolutions leaves the integers on ONNX Runtime",
            remedy="a resnet of the catalogue has strided convolutions instead",
        ),
    )
}
