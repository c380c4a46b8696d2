"""INT8 of a real ResNet exported by torch: equal integers and faster kernels."""

from __future__ import annotations

import io
import statistics
import time

import numpy as np
import pytest
from test_calibration_quantize import make_portable, run

from calibration.cpu_form import to_cpu_form
from calibration.lint import lint_cpu, lint_portable
from calibration.run_models import open_session

torch = pytest.importorskip("torch")


def export_resnet(name: str, size_px: int) -> bytes:
    """A timm ResNet with class evidence, as export writes students: mean 128 / std 64 folded."""
    from train.timm_door import create_untrained

    class Student(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body = create_untrained(name, num_classes=0, global_pool="")
            width = self.body.num_features
            self.evidence = torch.nn.Conv2d(width, 4, 1)
            self.gradability = torch.nn.Linear(width, 1)

        def forward(self, image):
            x = (image.to(torch.float32) - 128.0).permute(0, 3, 1, 2)
            features = self.body(x)
            evidence, embedding = self.evidence(features), features.mean((2, 3))
            return evidence.mean((2, 3)), self.gradability(embedding), embedding, evidence

    student = Student().eval()
    for module in student.modules():  # running statistics of 1/64-scaled input, by one pass
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        student.train()(torch.randint(0, 256, (8, size_px, size_px, 3), dtype=torch.uint8))
        stream = io.BytesIO()
        torch.onnx.export(
            student.eval(),
            (torch.zeros((1, size_px, size_px, 3), dtype=torch.uint8),),
            stream,
            dynamo=False,
            opset_version=17,
            input_names=["image_nhwc"],
            output_names=["logits", "gradability_logit", "embedding", "evidence"],
        )
    return stream.getvalue()


def cpu_ms(session, image) -> float:
    start = time.process_time()
    session.run(None, {"image_nhwc": image})
    return 1e3 * (time.process_time() - start)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["resnet10t", "resnet18"])
def test_timm_resnet_is_equal_clean_and_faster(name, rng):
    model = export_resnet(name, 128)
    pictures = rng.integers(0, 256, (6, 128, 128, 3)).astype(np.uint8)
    portable = make_portable(model, pictures)
    cpu = to_cpu_form(portable)
    assert lint_portable(portable) == []
    assert lint_cpu(cpu) == []
    first, second = (run(data, pictures, optimized=False) for data in (portable, cpu))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    exact = run(model, pictures)
    for a, b in zip(exact, first, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
    sessions = [open_session(data) for data in (model, cpu)]
    ratios = []
    for _ in range(30):  # interleaved, so that the load of the machine hits both
        times = [cpu_ms(session, pictures[:1]) for session in sessions]
        ratios.append(times[0] / times[1])
    speedup = statistics.median(ratios)
    print(f"{name}: INT8 {speedup:.2f} times the speed of FP32")
    assert speedup > 1.0
