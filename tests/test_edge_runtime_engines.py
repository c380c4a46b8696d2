"""ONNX Runtime engine: contract of the graph, refusals, threads, determinism."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from bundle_factory import LABELS, SIZE_PX, build_bundle, tiny_onnx
from onnx import TensorProto, helper

from edge_runtime.bundle import Bundle, read_bundle
from edge_runtime.engines import open_engine
from edge_runtime.engines.ort import OrtEngine
from edge_runtime.errors import ConfigError, EngineError


def engine(model: bytes | None = None, **changes: int) -> OrtEngine:
    """The tiny graph opened, with changes."""
    values = {"size_px": SIZE_PX, "num_labels": len(LABELS), **changes}
    return OrtEngine(tiny_onnx() if model is None else model, precision="fp32", **values)


def edited(change: Callable[[onnx.ModelProto], None]) -> bytes:
    """The tiny graph after a change."""
    model = onnx.load_model_from_string(tiny_onnx())
    change(model)
    return bytes(model.SerializeToString())


def pictures(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random pictures (n, 1, S, S, 3)."""
    return rng.integers(0, 256, (n, 1, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    built = build_bundle(tmp_path_factory.mktemp("engines") / "bundle")
    return read_bundle(built.folder, trusted_keys=built.trusted_keys)


def test_output_has_the_shapes_of_the_contract(rng: np.random.Generator) -> None:
    output = engine().run(pictures(rng, 1)[0])
    assert output.logits.shape == (len(LABELS),)
    assert output.logits.dtype == np.float32
    assert isinstance(output.gradability_logit, float)
    assert output.embedding.ndim == 1
    assert output.evidence.shape[0] == len(LABELS)
    np.testing.assert_allclose(output.evidence.mean(axis=(1, 2)), output.logits, atol=1e-5)


def test_runs_are_deterministic_and_correct_from_many_threads(rng: np.random.Generator) -> None:
    opened, images = engine(), pictures(rng, 40)
    alone = [opened.run(image).logits for image in images]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: opened.run(image).logits, images))
    np.testing.assert_array_equal(alone, together)
    assert len({row.tobytes() for row in alone}) == len(images)


def test_results_of_an_earlier_run_are_not_overwritten(rng: np.random.Generator) -> None:
    opened, images = engine(), pictures(rng, 2)
    first = opened.run(images[0])
    kept = first.logits.copy(), first.evidence.copy()
    opened.run(images[1])
    np.testing.assert_array_equal(first.logits, kept[0])
    np.testing.assert_array_equal(first.evidence, kept[1])


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((1, SIZE_PX, SIZE_PX, 3), np.float32),
        np.zeros((SIZE_PX, SIZE_PX, 3), np.uint8),
        np.zeros((2, SIZE_PX, SIZE_PX, 3), np.uint8),
        np.zeros((1, 3, SIZE_PX, SIZE_PX), np.uint8),
    ],
)
def test_a_wrong_picture_is_an_error_of_the_caller(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="not uint8"):
        engine().run(image)


def test_a_picture_that_is_not_contiguous_gives_the_same_answer(rng: np.random.Generator) -> None:
    image = pictures(rng, 1)[0]
    flipped = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    assert not flipped.flags.c_contiguous
    np.testing.assert_array_equal(engine().run(flipped).logits, engine().run(image).logits)


def test_a_closed_engine_refuses(rng: np.random.Generator) -> None:
    opened = engine()
    opened.close()
    with pytest.raises(EngineError, match="closed"):
        opened.run(pictures(rng, 1)[0])


def _rename_output(model: onnx.ModelProto) -> None:
    model.graph.node[-1].output[0] = "gradability"
    model.graph.output[1].name = "gradability"


def _drop_output(model: onnx.ModelProto) -> None:
    del model.graph.output[2]


def _free_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "N"


def _float_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


@pytest.mark.parametrize("change", [_rename_output, _drop_output, _free_batch, _float_input])
def test_a_graph_that_breaks_the_contract_is_refused(
    change: Callable[[onnx.ModelProto], None],
) -> None:
    with pytest.raises(EngineError, match=r"graph's (input|outputs)"):
        engine(edited(change))


@pytest.mark.parametrize("changes", [{"size_px": 64}, {"num_labels": 3}])
def test_a_graph_of_another_size_or_label_count_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(EngineError, match=r"graph's (input|outputs)"):
        engine(**changes)


@pytest.mark.parametrize("model", [b"", b"not an onnx file", tiny_onnx()[:-200]])
def test_bytes_that_are_no_graph_are_refused(model: bytes) -> None:
    with pytest.raises(EngineError, match="refuses the graph"):
        engine(model)


def test_a_path_is_never_opened(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_onnx())
    with pytest.raises(EngineError, match="refuses the graph"):
        engine(str(path).encode())


def test_output_that_is_not_finite_is_an_engine_error(rng: np.random.Generator) -> None:
    def spoil(model: onnx.ModelProto) -> None:
        model.graph.node[-1].output[0] = "finite"
        node = helper.make_node("Div", ["finite", "zero"], ["gradability_logit"])
        model.graph.node.append(node)
        zero = helper.make_tensor("zero", TensorProto.FLOAT, [1, 1], [0.0])
        model.graph.initializer.append(zero)

    opened = engine(edited(spoil))
    with pytest.raises(EngineError, match="gradability_logit is not finite"):
        opened.run(pictures(rng, 1)[0])


def _fake_onnxruntime(providers: list[str], run: Callable[..., object]) -> ModuleType:
    class Session:
        def __init__(self, model: bytes, _options: object, **_asked: object) -> None:
            assert isinstance(model, bytes)

        def get_providers(self) -> list[str]:
            return providers

        def get_inputs(self) -> list[SimpleNamespace]:
            shape = [1, SIZE_PX, SIZE_PX, 3]
            return [SimpleNamespace(name="image_nhwc", type="tensor(uint8)", shape=shape)]

        def get_outputs(self) -> list[SimpleNamespace]:
            shapes = {
                "logits": [1, 2],
                "gradability_logit": [1, 1],
                "embedding": [1, 4],
                "evidence": [1, 2, 3, 3],
            }
            return [
                SimpleNamespace(name=n, type="tensor(float)", shape=s) for n, s in shapes.items()
            ]

        def run(self, *args: object) -> object:
            return run(*args)

    class Options:
        def add_session_config_entry(self, key: str, value: str) -> None:
            assert (key, value) == ("session.intra_op.allow_spinning", "0")

    fake = ModuleType("onnxruntime")
    fake.InferenceSession, fake.SessionOptions, fake.__version__ = Session, Options, "0"
    return fake


def test_another_provider_than_asked_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = _fake_onnxruntime(["CUDAExecutionProvider", "CPUExecutionProvider"], lambda *_: None)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    with pytest.raises(EngineError, match="asked for"):
        engine()


def test_a_failing_run_is_an_engine_error(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    def fail(*_: object) -> object:
        raise RuntimeError("kernel failed")

    monkeypatch.setitem(
        sys.modules, "onnxruntime", _fake_onnxruntime(["CPUExecutionProvider"], fail)
    )
    with pytest.raises(EngineError, match="kernel failed"):
        engine().run(pictures(rng, 1)[0])


def test_a_missing_onnxruntime_is_an_engine_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="cannot be imported"):
        engine()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["auto", "onnxruntime"])
def test_open_engine_runs_the_file_of_the_precision(
    bundle: Bundle, name: str, precision: str
) -> None:
    opened = open_engine(bundle, engine=name, precision=precision)
    assert (opened.name, opened.precision) == ("onnxruntime", precision)
    golden = bundle.golden()
    key = {"fp32": "fp32", "int8": "int8_cpu"}[precision]
    logits = opened.run(golden.image_nhwc[:1]).logits
    np.testing.assert_allclose(logits, golden.logits[key][0], atol=1e-4)
    opened.close()


def test_tensorrt_that_is_missing_is_an_error_and_nothing_runs_in_its_place(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match="TensorRT cannot be imported"):
        open_engine(bundle, engine="tensorrt")


def test_auto_says_why_it_is_onnxruntime(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    opened = open_engine(bundle)
    assert opened.facts.details["chosen"].endswith("because TensorRT is not installed")
    assert opened.facts.warnings == ()
    assert "chosen" not in open_engine(bundle, engine="onnxruntime").facts.details


@pytest.mark.parametrize(
    "changes",
    [{"engine": "openvino"}, {"precision": "fp16"}, {"precision": "bf16"}, {"num_threads": 0}],
)
def test_unknown_settings_are_refused(bundle: Bundle, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="use"):
        open_engine(bundle, **changes)  # type: ignore[arg-type]
