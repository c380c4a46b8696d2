"""ONNX Runtime engine: contract of the graph, refusals, threads, determinism."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from bundle_factory import LABELS, SIZE_PX, build_bundle, tiny_onnx
from onnx import TensorProto, helper

from edge_runtime.bundle import MODEL_FILES, Bundle, read_bundle
from edge_runtime.engines import open_engine
from edge_runtime.engines.ort import OrtEngine
from edge_runtime.engines.ort_providers import ORT_PROVIDERS, OrtProvider, askable_providers
from edge_runtime.errors import ConfigError, EngineError


def engine(model: bytes | None = None, **changes: Any) -> OrtEngine:
    """The tiny graph opened, with changes."""
    values: dict[str, Any] = {"size_px": SIZE_PX, "num_labels": len(LABELS), **changes}
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


class FakeOnnxruntime(ModuleType):
    """An onnxruntime with the providers that a test wants, which notes what it was asked for.

    `available` is what the package was built with, `given` what a session ends up with: as the
    real one, it opens on something else where a library is missing.
    """

    def __init__(
        self,
        available: Sequence[str],
        given: Sequence[str],
        run: Callable[..., object] = lambda *_: None,
    ) -> None:
        super().__init__("onnxruntime")
        self.__version__ = "0"
        self.available, self.given, self.run_graph = list(available), list(given), run
        self.asked: dict[str, object] = {}
        self.model = b""
        self.config: dict[str, str] = {}
        self.num_disabled_fallbacks = 0
        self.SessionOptions = lambda: SimpleNamespace(
            add_session_config_entry=self.config.__setitem__
        )

    def get_available_providers(self) -> list[str]:
        return self.available

    def InferenceSession(self, model: bytes, _options: object, **asked: object) -> SimpleNamespace:
        assert isinstance(model, bytes)
        self.model, self.asked = model, asked
        shapes = {
            "logits": [1, 2],
            "gradability_logit": [1, 1],
            "embedding": [1, 4],
            "evidence": [1, 2, 3, 3],
        }
        image = SimpleNamespace(
            name="image_nhwc", type="tensor(uint8)", shape=[1, SIZE_PX, SIZE_PX, 3]
        )

        def disable_fallback() -> None:
            self.num_disabled_fallbacks += 1

        return SimpleNamespace(
            disable_fallback=disable_fallback,
            get_providers=lambda: self.given,
            get_inputs=lambda: [image],
            get_outputs=lambda: [
                SimpleNamespace(name=n, type="tensor(float)", shape=s) for n, s in shapes.items()
            ],
            run=self.run_graph,
        )


CPU, CUDA, TRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
EVERY = (TRT, CUDA, CPU)


@pytest.mark.parametrize(
    ("provider", "given"),
    [
        ("cpu", [CUDA, CPU]),
        ("cpu", [CUDA]),
        ("cpu", []),
        ("cuda", [CPU]),
        ("cuda", [CPU, CUDA]),
        ("cuda", [TRT, CUDA, CPU]),
        ("cuda", []),
        ("tensorrt", [CPU]),
        ("tensorrt", [CUDA, CPU]),
        ("tensorrt", [TRT, CUDA, CPU]),
    ],
)
def test_another_provider_than_asked_is_refused(
    monkeypatch: pytest.MonkeyPatch, provider: str, given: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeOnnxruntime(EVERY, given))
    with pytest.raises(EngineError, match=f"asked for provider '{provider}'.*install"):
        engine(provider=provider)


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_onnxruntime_lacks_is_named_with_what_to_install(provider: str) -> None:
    """The real onnxruntime of this environment has neither."""
    with pytest.raises(EngineError, match=rf"'{provider}' is not in.*{CPU}.*onnxruntime-gpu"):
        engine(provider=provider)


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(ConfigError, match="provider is 'rocm'; use one of cpu, cuda, tensorrt"):
        engine(provider="rocm")


@pytest.mark.parametrize(
    ("provider", "name", "int8_file"),
    [("cpu", CPU, "int8_cpu"), ("cuda", CUDA, "int8"), ("tensorrt", TRT, "int8")],
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_each_provider_gets_its_file_and_no_way_to_fall_back(
    monkeypatch: pytest.MonkeyPatch,
    marked: Bundle,
    provider: str,
    name: str,
    int8_file: str,
    precision: str,
) -> None:
    fake = FakeOnnxruntime(EVERY, [name] if provider == "cpu" else [name, CPU])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    opened = open_engine(marked, engine="onnxruntime", precision=precision, provider=provider)
    assert fake.model == marked.model_bytes(precision if precision == "fp32" else int8_file)
    assert (opened.name, opened.precision) == ("onnxruntime", precision)
    assert opened.facts.details["provider"] == name
    assert fake.asked["providers"] == [name]
    assert fake.asked["enable_fallback"] == 0
    assert fake.num_disabled_fallbacks == 1
    (options,) = fake.asked["provider_options"]  # type: ignore[misc]
    assert options.get("trt_int8_enable") == (
        "1" if (provider, precision) == ("tensorrt", "int8") else None
    )
    assert fake.config == {
        "session.intra_op.allow_spinning": "0",
        **({} if provider == "cpu" else {"session.disable_cpu_ep_fallback": "1"}),
    }


@pytest.fixture
def marked(bundle: Bundle) -> Bundle:
    """The bundle with another model in every file, so that the files can be told apart."""
    contents = {name: data + name.encode() for name, data in bundle.contents.items()}
    assert len({contents[MODEL_FILES[one]] for one in ("fp32", "int8", "int8_cpu")}) == 3
    return replace(bundle, contents=contents)


@pytest.mark.parametrize("name", ["auto", "tensorrt"])
def test_a_provider_needs_the_engine_that_has_providers(bundle: Bundle, name: str) -> None:
    with pytest.raises(ConfigError, match="engine 'onnxruntime'"):
        open_engine(bundle, engine=name, provider="cuda")


def test_the_real_onnxruntime_refuses_a_graph_that_would_run_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Azure's provider is in every build and knows no node, so all would go to the CPU."""
    import onnxruntime

    azure = OrtProvider(word="azure", name="AzureExecutionProvider", install="install it")
    if azure.name not in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has no AzureExecutionProvider")
    monkeypatch.setitem(ORT_PROVIDERS, "azure", azure)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"assigned to the default CPU EP.*install it"):
        engine(provider="azure")


def test_askable_providers_are_those_that_are_there() -> None:
    assert askable_providers((CUDA, "AzureExecutionProvider", CPU)) == ("cpu", "cuda")
    assert askable_providers(()) == ()


def test_a_failing_run_is_an_engine_error(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    def fail(*_: object) -> object:
        raise RuntimeError("kernel failed")

    monkeypatch.setitem(sys.modules, "onnxruntime", FakeOnnxruntime(EVERY, [CPU], fail))
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
    [
        {"engine": "openvino"},
        {"precision": "fp16"},
        {"precision": "bf16"},
        {"num_threads": 0},
        {"provider": "gpu"},
    ],
)
def test_unknown_settings_are_refused(bundle: Bundle, changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="use"):
        open_engine(bundle, **changes)  # type: ignore[arg-type]
