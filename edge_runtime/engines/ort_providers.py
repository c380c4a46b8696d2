"""Execution providers of ONNX Runtime: which may be asked for, and that nothing runs in its place.

ONNX Runtime answers a provider that it cannot give with a warning and the CPU: when the package
was built without it, when one of its libraries is missing, and for every node that it does not
know. Here each of these is an `EngineError`. CUDA and TensorRT providers were checked against a
pretended onnxruntime only; no GPU was at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edge_runtime.errors import ConfigError, EngineError

__all__ = [
    "ORT_PROVIDERS",
    "OrtProvider",
    "askable_providers",
    "find_provider",
    "require_available",
    "require_given",
]

_CPU = "CPUExecutionProvider"


@dataclass(frozen=True, kw_only=True)
class OrtProvider:
    """One execution provider.

    Attributes:
        word: What a caller says.
        name: What ONNX Runtime calls it.
        install: What to do where it is missing.
        options: Settings of the provider, in ONNX Runtime's own names, for every precision.
        int8_options: Further settings for the INT8 file.
        portable_int8: Whether it takes the portable Q/DQ file; the other one holds the form that
            the CPU's kernels run fastest, and no GPU knows its unsigned activations.
    """

    word: str
    name: str
    install: str
    options: Mapping[str, str] = field(default_factory=dict)
    int8_options: Mapping[str, str] = field(default_factory=dict)
    portable_int8: bool = True

    @property
    def is_cpu(self) -> bool:
        """Whether it is the one that every onnxruntime has."""
        return self.name == _CPU

    def bundle_precision(self, precision: str) -> str:
        """Return the name that the bundle's files use for "fp32" or "int8" on this provider."""
        return "int8_cpu" if precision == "int8" and not self.portable_int8 else precision

    def options_for(self, precision: str) -> dict[str, str]:
        """Return the settings for a precision."""
        return {**self.options, **(self.int8_options if precision == "int8" else {})}


_GPU_PACKAGE = (
    "install onnxruntime-gpu in place of onnxruntime (on a Jetson the wheel for its JetPack), with "
    "the CUDA and cuDNN that its release notes name"
)
#: By word. TF32 is off because FP32 must mean FP32; the default algorithm of cuDNN is taken
#: because the fastest one is chosen by timing, and might be another one tomorrow.
ORT_PROVIDERS: Mapping[str, OrtProvider] = {
    one.word: one
    for one in (
        OrtProvider(
            word="cpu", name=_CPU, install="install onnxruntime again", portable_int8=False
        ),
        OrtProvider(
            word="cuda",
            name="CUDAExecutionProvider",
            install=_GPU_PACKAGE,
            options={"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"},
        ),
        OrtProvider(
            word="tensorrt",
            name="TensorrtExecutionProvider",
            install=f"{_GPU_PACKAGE}, and TensorRT; or use engine 'tensorrt'",
            int8_options={"trt_int8_enable": "1"},
        ),
    )
}


def find_provider(word: str) -> OrtProvider:
    """Return the provider of a word.

    Raises:
        ConfigError: An unknown word.
    """
    if word not in ORT_PROVIDERS:
        raise ConfigError(f"provider is {word!r}; use one of {', '.join(ORT_PROVIDERS)}")
    return ORT_PROVIDERS[word]


def askable_providers(available: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words that an onnxruntime with these providers could be asked for."""
    return tuple(word for word, one in ORT_PROVIDERS.items() if one.name in available)


def require_available(ort: Any, provider: OrtProvider) -> None:
    """Refuse a provider that the installed onnxruntime was built without.

    Raises:
        EngineError: It says what is there and what to install.
    """
    available = tuple(ort.get_available_providers())
    if provider.name not in available:
        raise EngineError(
            f"provider {provider.word!r} is not in the installed onnxruntime {ort.__version__}, "
            f"which has {', '.join(available) or 'none'}; {provider.install}"
        )


def require_given(session: Any, provider: OrtProvider) -> None:
    """Refuse a session that runs on something else than what was asked for.

    ONNX Runtime adds the CPU behind every provider; that it gets no node of the graph is for the
    session option `session.disable_cpu_ep_fallback`, which the session was opened with.

    Raises:
        EngineError: The provider is not the first of the session, or another GPU follows it.
    """
    given = list(session.get_providers())
    allowed = [[provider.name]] if provider.is_cpu else [[provider.name], [provider.name, _CPU]]
    if given not in allowed:
        raise EngineError(
            f"asked for provider {provider.word!r}, and ONNX Runtime gave {', '.join(given)}: "
            f"a library that it needs does not load; {provider.install}"
        )
