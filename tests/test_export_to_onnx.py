"""The exported file is the student: numbers, borders, names, and nothing but plain operators."""

from __future__ import annotations

import copy

import numpy as np
import onnx
import pytest
import torch

from distill.student import Student, StudentConfig
from edge_runtime.bundle_parts.onnx_safety import check_onnx
from edge_runtime.errors import ImageError, ParityError
from edge_runtime.preprocess import PreprocessSpec, load_for_model
from export.fold import fold_batch_norms
from export.parity import TOLERANCE, check_parity, probe_images
from export.to_onnx import OUTPUT_NAMES, ExportGraph, _check_written, export_onnx
from train.arrays import normalize_cfp
from train.data.index import read_index

LABELS = ("edema", "glaucoma", "amd")
CONFIG = StudentConfig(size_px=64, channels=(8, 16, 16, 24), stem_width=8)


@pytest.fixture(scope="module")
def student() -> Student:
    """Random weights, and BatchNorm statistics and affines far from their start values."""
    torch.manual_seed(3)
    model = Student(CONFIG, LABELS)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.5)
    torch.nn.init.normal_(model.evidence.weight, std=0.5)
    torch.nn.init.normal_(model.gradability.weight, std=0.5)
    model.train()
    with torch.no_grad():
        for _ in range(5):
            model(torch.randn(8, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def model_bytes(student) -> bytes:
    return export_onnx(student, metadata={"labels": "edema,glaucoma,amd", "name": "t"})


def test_the_file_equals_the_student_also_at_the_border(student, model_bytes) -> None:
    images = probe_images(64)
    report = check_parity(student, model_bytes, images)
    assert report.passed
    assert {output.name for output in report.outputs} == set(OUTPUT_NAMES)
    for flat in images[-2:]:  # constant 0 and constant 255 alone, where only borders differ
        alone = check_parity(student, model_bytes, flat[None])
        assert max(output.relative for output in alone.outputs) < TOLERANCE


def test_graph_contract(model_bytes) -> None:
    model = onnx.load_model_from_string(model_bytes)
    check_onnx(model_bytes, name="model")
    assert model.ir_version == 8
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 17)]
    (image,) = model.graph.input
    assert image.name == "image_nhwc"
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert shape(image) == [1, 64, 64, 3]
    outputs = {output.name: shape(output) for output in model.graph.output}
    assert outputs == {
        "logits": [1, 3],
        "gradability_logit": [1, 1],
        "embedding": [1, 24],
        "evidence": [1, 3, 2, 2],
    }
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "labels": "edema,glaucoma,amd",
        "name": "t",
    }
    kinds = [node.op_type for node in model.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("ReduceMean") == 3


def shape(value) -> list[int]:
    return [axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_the_same_student_gives_the_same_bytes_and_is_left_as_it_was(student, model_bytes) -> None:
    before = {name: value.clone() for name, value in student.state_dict().items()}
    again = export_onnx(student, metadata={"name": "t", "labels": "edema,glaucoma,amd"})
    assert again == model_bytes
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())


def test_the_scale_of_the_input_is_folded_without_rounding(student) -> None:
    graph = ExportGraph(student)
    folded = copy.deepcopy(student)
    fold_batch_norms(folded.backbone, torch.zeros(1, 3, 64, 64))
    first = next(m for m in folded.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    ours = next(m for m in graph.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    assert torch.equal(ours.weight * 64, first.weight)


def test_folding_finds_every_batch_norm_and_keeps_the_function(student) -> None:
    model = copy.deepcopy(student.backbone)
    expected_folds = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = model(image)
        assert fold_batch_norms(model, image) == expected_folds > 10
        torch.testing.assert_close(model(image), before, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())


def test_a_batch_norm_without_its_convolution_is_refused() -> None:
    stray = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.ReLU(), torch.nn.BatchNorm2d(4))
    with pytest.raises(ParityError, match="2 is not fed"):
        fold_batch_norms(stray, torch.zeros(1, 3, 8, 8))


def test_a_padding_fault_is_found(student, model_bytes) -> None:
    """Zero padding that means black instead of mid grey: the fault the tolerance is for."""
    wrong = copy.deepcopy(student)
    first = next(m for m in wrong.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_pre_hook(
        lambda _, args: (torch.nn.functional.pad(args[0], [1] * 4, value=-2.0),)
    )
    first.padding = (0, 0)
    images = probe_images(64)
    with torch.no_grad():
        difference = (
            wrong(normalize_cfp(torch.from_numpy(images))).logits
            - student(normalize_cfp(torch.from_numpy(images))).logits
        )
    assert float(difference.abs().max()) > 0
    with pytest.raises(ParityError, match=r"evidence differs by .* allowed 0.0001"):
        check_parity(wrong, model_bytes, images)


def test_other_weights_and_numbers_that_are_not_finite_are_found(student, model_bytes) -> None:
    other = copy.deepcopy(student)
    with torch.no_grad():
        other.gradability.bias += 0.1
    with pytest.raises(ParityError, match=r"gradability_logit differs by 0\.1"):
        check_parity(other, model_bytes, probe_images(64))
    with torch.no_grad():
        other.gradability.bias += torch.nan
    with pytest.raises(ParityError, match="gradability_logit differs by nan"):
        check_parity(other, model_bytes, probe_images(64))


def test_another_shape_is_found(model_bytes) -> None:
    torch.manual_seed(0)
    with pytest.raises(ParityError, match="logits has shape"):
        check_parity(Student(CONFIG, ("a", "b")).eval(), model_bytes, probe_images(64))


def test_probe_images_hold_both_constants() -> None:
    images = probe_images(32, seed=1, num_random=2)
    assert images.shape == (4, 32, 32, 3)
    assert images.dtype == np.uint8
    assert [np.unique(image).tolist() for image in images[-2:]] == [[0], [255]]


def test_a_file_above_the_size_budget_is_refused(student) -> None:
    with pytest.raises(ParityError, match=r"more than 0\.01; take a smaller student"):
        export_onnx(student, metadata={}, max_size_mib=0.01)


@pytest.mark.parametrize(
    ("kind", "word"),
    [("BatchNormalization", "BatchNorm was not folded"), ("Einsum", "not every TensorRT builds")],
)
def test_a_graph_with_other_operators_is_refused(model_bytes, kind, word) -> None:
    model = onnx.load_model_from_string(model_bytes)
    model.graph.node[5].op_type = kind
    with pytest.raises(ParityError, match=word):
        _check_written(model.SerializeToString(), 100.0)


def test_another_opset_than_asked_for_is_found_on_reading_again(model_bytes) -> None:
    model = onnx.load_model_from_string(model_bytes)
    model.opset_import[0].version = 18
    with pytest.raises(ParityError, match="wrote opsets"):
        _check_written(model.SerializeToString(), 100.0)


def test_parity_on_phantom_eyes(student, model_bytes, phantom_dir) -> None:
    images = prepared([v.files["cfp"] for v in read_index(phantom_dir).visits[:8]])
    assert check_parity(student, model_bytes, images).num_images == len(images) > 0


def test_parity_on_real_photographs(student, model_bytes, real_data_dir) -> None:
    files = sorted((real_data_dir / "fullres").rglob("*.jp*g"))[:4]
    files += sorted((real_data_dir / "odir256").rglob("*.jp*g"))[:20]
    images = prepared(files)
    assert len(images) > 10
    assert check_parity(student, model_bytes, images).passed


def prepared(files) -> np.ndarray:
    """(N, 64, 64, 3) model inputs of the pictures that preprocessing takes."""
    images = []
    for path in files:
        try:
            images.append(
                load_for_model(path.read_bytes(), PreprocessSpec(size_px=64))[1].image_hwc
            )
        except ImageError:
            continue
    return np.stack(images)
