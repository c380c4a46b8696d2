"""The graph on ONNX Runtime, from verified bytes, on the provider asked for and no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge_runtime.engines import MAX_CALLERS, EngineFacts, ModelOutput
from edge_runtime.engines.io_contract import (
    INPUT_NAME,
    OUTPUT_NAMES,
    check_image,
    check_output_shapes,
    to_model_output,
)
from edge_runtime.engines.ort_providers import (
    OrtProvider,
    find_provider,
    require_available,
    require_given,
)
from edge_runtime.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OrtEngine"]

_LOG_ERRORS_ONLY = 3


class OrtEngine:
    """One shared `InferenceSession`; its `run` is thread-safe and keeps no buffer of ours."""

    name = "onnxruntime"
    max_callers = MAX_CALLERS

    def __init__(
        self,
        model_bytes: bytes,
        *,
        precision: str,
        size_px: int,
        num_labels: int,
        num_threads: int = 1,
        provider: str = "cpu",
        facts: EngineFacts | None = None,
    ) -> None:
        """Load the graph and check it against the contract.

        Args:
            model_bytes: Verified bytes of an ONNX file; a path is never opened, so that what was
                hashed is what runs.
            precision: Carried into results; "int8" has settings of its own on some providers.
            size_px: Side S of the input picture.
            num_labels: L.
            num_threads: Threads inside one run on the CPU.
            provider: "cpu", "cuda" or "tensorrt"; see `ort_providers`. Whether the bytes are the
                file for it is the caller's business.
            facts: What the opener knows already, for example why this engine.

        Raises:
            ConfigError: If there is no such provider.
            EngineError: If ONNX Runtime is missing, lacks the provider, refuses the graph, would
                run any of it elsewhere, or the graph's inputs and outputs differ from the
                contract.
        """
        self.precision = precision
        self._shape = (1, size_px, size_px, 3)
        wanted = find_provider(provider)
        self._session: Any = _load(model_bytes, num_threads, wanted, precision)
        _check_input(self._session.get_inputs(), self._shape)
        self._output_shapes = _check_outputs(self._session.get_outputs(), num_labels)
        self._facts = (facts or EngineFacts()).with_more(_details(num_threads, wanted))

    @property
    def facts(self) -> EngineFacts:
        """What it runs on."""
        return self._facts

    def run(self, image_nhwc: NDArray[np.uint8], *, timeout_s: float | None = None) -> ModelOutput:
        """Run one picture, uint8 (1, S, S, 3) RGB; a run of ONNX Runtime cannot be left early.

        Raises:
            EngineError: If the engine is closed, the run fails, or an output is not finite.
            ValueError: If the picture has another shape or dtype (an error of the caller).
        """
        del timeout_s
        check_image(image_nhwc, self._shape)
        session = self._session
        if session is None:
            raise EngineError("the engine is closed; open the Screener again")
        try:
            values = session.run(list(OUTPUT_NAMES), {INPUT_NAME: np.ascontiguousarray(image_nhwc)})
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise EngineError(
                f"ONNX Runtime failed in a run ({type(error).__name__}: {error}); "
                "run `edge-screen verify` on the bundle"
            ) from error
        return self._unpack(dict(zip(OUTPUT_NAMES, values, strict=True)))

    def close(self) -> None:
        """Release the session."""
        self._session = None

    def _unpack(self, values: dict[str, NDArray[np.float32]]) -> ModelOutput:
        for name, value in values.items():
            if value.shape != self._output_shapes[name]:
                raise EngineError(f"output {name} came back as {value.shape}; verify the bundle")
        return to_model_output(values)


def _details(num_threads: int, provider: OrtProvider) -> dict[str, str]:
    import onnxruntime as ort

    return {
        "onnxruntime": str(ort.__version__),
        "provider": provider.name,
        "threads": str(num_threads),
    }


def _load(model_bytes: bytes, num_threads: int, provider: OrtProvider, precision: str) -> Any:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise EngineError(f"onnxruntime cannot be imported ({error}); install it") from error
    require_available(ort, provider)
    try:
        session = ort.InferenceSession(
            model_bytes,
            _options(ort, num_threads, provider),
            providers=[provider.name],
            provider_options=[provider.options_for(precision)],
            enable_fallback=0,  # of opening; by default a provider that fails becomes the CPU
        )
    except Exception as error:  # as in OrtEngine.run
        raise EngineError(
            f"ONNX Runtime {ort.__version__} refuses the graph on {provider.name} ({error}); "
            + (
                "export the bundle again or update onnxruntime"
                if provider.is_cpu
                else f"a library that it needs does not load or it lacks an operator: "
                f"{provider.install}, or use another provider"
            )
        ) from error
    session.disable_fallback()  # of running
    require_given(session, provider)
    return session


def _options(ort: Any, num_threads: int, provider: OrtProvider) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.use_deterministic_compute = True
    # Spinning workers double the CPU time and lose under load.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not provider.is_cpu:  # a graph of which a node would run on the CPU is refused
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options


def _check_input(inputs: Any, shape: tuple[int, ...]) -> None:
    found = [(i.name, i.type, tuple(i.shape)) for i in inputs]
    expected = [(INPUT_NAME, "tensor(uint8)", shape)]
    if found != expected:
        raise EngineError(f"the graph's input is {found}, not {expected}; export the bundle again")


def _check_outputs(outputs: Any, num_labels: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every output, which must be known numbers in the contract's form."""
    shapes = {o.name: tuple(o.shape) for o in outputs}
    types = {o.type for o in outputs}
    if types != {"tensor(float)"}:
        raise EngineError(f"the graph's outputs are {shapes} of {types}, not float {OUTPUT_NAMES}")
    check_output_shapes(shapes, num_labels)
    return shapes
