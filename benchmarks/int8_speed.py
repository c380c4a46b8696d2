"""INT8 against FP32 in ONNX Runtime, one thread, interleaved in one run: which placement pays.

    python benchmarks/int8_speed.py --arch mobilenetv4_conv_small --size-px 224
    python benchmarks/int8_speed.py --student runs/student --data-seed 1

Files compared with FP32:

    cpu              model.int8-cpu.onnx as shipped: pairs on both inputs of an Add
    three channels   the same without the fourth image channel
    identity pairs   pairs on the identity branch alone (--residual-pairs identity)
    float heads in   the features that the heads read are left float, as before

Random weights with settled BatchNorm serve as well as trained ones: speed does not depend on
them. CPU time of the process, median over rounds of (FP32 / variant), quartiles beside it.
Needs the extra `export`. Figures of another machine say nothing about yours.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.cpu_form import to_cpu_form
from calibration.observers import RangeMethod
from calibration.onnx_graph import read_model
from calibration.quantize import QuantizationPlan, plan_quantization, quantize
from calibration.ranges import observe_activations, ranges_of
from calibration.run_models import INPUT_NAME, open_session

ROUNDS, WARM_UP = 40, 5


def main() -> None:
    """Parse, build, race, print."""
    import onnxruntime

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--arch", help="timm architecture, random weights")
    source.add_argument("--student", type=Path, help="a student checkpoint")
    parser.add_argument("--size-px", type=int, default=224, help="with --arch")
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    model, size_px = exported(args.arch, args.size_px, args.student)
    images = smooth_noise(4, size_px, args.data_seed)
    files = {"fp32": model, **variants(model, images)}
    rows = race(files, images[:1], args.rounds)
    if args.json:
        print(json.dumps({"model": args.arch or str(args.student), "size_px": size_px, **rows}))
        return
    print(f"{args.arch or args.student}, {size_px} px, onnxruntime {onnxruntime.__version__}")
    for name, row in rows.items():
        low, high = row["ratio_quartiles"]
        print(
            f"  {name:16} {row['median_ms']:8.2f} ms CPU   {row['ratio']:5.2f} times FP32 "
            f"({low:.2f} to {high:.2f})   {row['size_mib']:6.1f} MiB"
        )


def exported(arch: str | None, size_px: int, student_dir: Path | None) -> tuple[bytes, int]:
    """The FP32 file of a student, and its side in pixels."""
    from export.to_onnx import export_onnx

    if student_dir is not None:
        from distill.student import load_student

        student, _ = load_student(student_dir)
        return export_onnx(student, metadata={}), student.config.size_px
    return export_onnx(random_student(str(arch), size_px), metadata={}), size_px


def random_student(arch: str, size_px: int):
    """Any timm backbone with the heads of a student and settled BatchNorm."""
    import torch

    from train.timm_door import create_untrained

    class Backboned(torch.nn.Module):
        """What `export_onnx` needs of a student."""

        def __init__(self) -> None:
            super().__init__()
            self.config = argparse.Namespace(size_px=size_px)
            self.backbone = create_untrained(arch, num_classes=0, global_pool="")
            with torch.no_grad():
                width = self.backbone.eval()(torch.zeros(1, 3, 64, 64)).shape[1]
            self.evidence = torch.nn.Conv2d(width, 3, 1)
            self.gradability = torch.nn.Conv2d(width, 1, 1)

    torch.manual_seed(0)
    student = Backboned()
    for module in student.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        batch = torch.from_numpy(smooth_noise(4, size_px, 7)).permute(0, 3, 1, 2).float()
        student.backbone.train()((batch - 128) / 64)
    return student.eval()


def variants(model: bytes, images: NDArray[np.uint8]) -> dict[str, bytes]:
    """CPU files by name."""
    both = plan_quantization(model)
    identity = plan_quantization(model, residual_pairs="identity")
    graph = read_model(model).graph
    features = next(node.input[0] for node in graph.node if node.name == both.float_nodes[-1])
    kept = tuple(name for name in both.observed if name != features)
    cpu = cpu_file(model, images, both)
    return {
        "cpu": cpu,
        "three channels": without_fourth_channel(cpu),
        "identity pairs": cpu_file(model, images, identity),
        "float heads in": cpu_file(model, images, replace(both, observed=kept)),
    }


def cpu_file(model: bytes, images: NDArray[np.uint8], plan: QuantizationPlan) -> bytes:
    """The CPU form with ranges of a few images."""
    histograms = observe_activations(model, plan.observed, images)
    return to_cpu_form(quantize(model, plan, ranges_of(histograms, RangeMethod(name="minmax"))))


def without_fourth_channel(cpu: bytes) -> bytes:
    """Take the joined plane, and the zeros of the first weight, out again."""
    from onnx import numpy_helper

    model = read_model(cpu)
    graph = model.graph
    join = graph.node[0]
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == join.output[0]:
                node.input[index] = join.input[0]
    graph.node.remove(join)
    for tensor in graph.initializer:
        if tensor.name.endswith("_4_channels"):
            narrow = numpy_helper.to_array(tensor)[:, :3]
            tensor.CopyFrom(numpy_helper.from_array(narrow.copy(), tensor.name))
    return model.SerializeToString()


def race(files: dict[str, bytes], image: NDArray[np.uint8], rounds: int) -> dict[str, dict]:
    """CPU milliseconds and ratios to 'fp32', every file once a round."""
    sessions = {name: open_session(data) for name, data in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    for number in range(WARM_UP + rounds):
        for name, session in sessions.items():
            start = time.process_time()
            session.run(None, {INPUT_NAME: image})
            if number >= WARM_UP:
                times[name].append(1e3 * (time.process_time() - start))
    base = np.array(times["fp32"])
    return {
        name: {
            "median_ms": float(np.median(values)),
            "ratio": float(np.median(base / np.array(values))),
            "ratio_quartiles": [
                float(x) for x in np.quantile(base / np.array(values), (0.25, 0.75))
            ],
            "size_mib": len(files[name]) / 2**20,
        }
        for name, values in times.items()
    }


def smooth_noise(count: int, size_px: int, seed: int) -> NDArray[np.uint8]:
    """(N, S, S, 3) uint8 colour blotches with fine noise."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(30, 225, (count, 8, 8, 3))
    tiled = coarse.repeat(size_px // 8, axis=1).repeat(size_px // 8, axis=2)
    return np.clip(tiled + rng.normal(0, 12, tiled.shape), 0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
