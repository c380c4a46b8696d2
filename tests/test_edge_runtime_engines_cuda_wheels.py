"""The pretended cuda-python beside the real wheel, where one is installed; no GPU is needed."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fake_cuda.device import FakeDevice
from fake_cuda.runtime_binding import make_runtime

from edge_runtime.engines.cuda_memory import _MODULES, open_device_memory
from edge_runtime.errors import CudaError

ADAPTER = Path(__file__).resolve().parent.parent / "edge_runtime" / "engines" / "cuda_runtime.py"
ENUMS = ("cudaError_t", "cudaMemcpyKind", "cudaDeviceAttr", "cudaStreamCaptureMode")


def names_used() -> set[str]:
    """Every name of the binding in the adapter's source."""
    text = ADAPTER.read_text(encoding="utf-8")
    found = set(re.findall(r"\"(cuda[A-Z]\w+)\"|\.(cuda[A-Z]\w+|cuda\w+_t)\b", text))
    return {first or second for first, second in found}


@pytest.fixture(scope="module")
def fake() -> ModuleType:
    return make_runtime(FakeDevice(), "cuda.bindings.runtime")


@pytest.fixture(scope="module")
def real() -> Any:
    """The wheel's module, under the name that its release has for it."""
    reason = ""
    for name in _MODULES["cuda-python"]:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reason = reason or str(error)
    pytest.skip(f"no cuda-python here ({reason})")


def find(module: Any, name: str) -> Any:
    """A name of the module or of one of its enumerations."""
    for place in (module, *(getattr(module, kind) for kind in ENUMS)):
        if hasattr(place, name):
            return getattr(place, name)
    raise AssertionError(f"{module.__name__} has no {name}")


def test_the_fake_has_every_name_that_the_adapter_uses(fake: ModuleType) -> None:
    assert len(names_used()) > 25
    for name in names_used():
        find(fake, name)


def test_the_wheel_has_every_name_and_the_fakes_numbers(real: Any, fake: ModuleType) -> None:
    for name in names_used():
        ours, theirs = find(fake, name), find(real, name)
        assert callable(ours) == callable(theirs)
        if not callable(ours):
            assert int(ours) == int(theirs), name
    for code in fake.cudaError_t:
        assert int(getattr(real.cudaError_t, code.name)) == int(code), code


def has_driver(real: Any) -> bool:
    """Whether the driver's library is here; releases before 12.9 raise for every call without."""
    try:
        real.cudaGetErrorString(real.cudaError_t.cudaErrorUnknown)
    except RuntimeError:
        return False
    return True


def test_the_words_of_the_codes_are_the_fakes(real: Any, fake: ModuleType) -> None:
    if not has_driver(real):
        pytest.skip("this release takes its words from the driver, which is not here")
    for code in fake.cudaError_t:
        if code == fake.cudaError_t.cudaSuccess:
            continue
        ours = fake.cudaGetErrorString(code)[1]
        assert real.cudaGetErrorString(getattr(real.cudaError_t, code.name))[1] == ours, code


def test_without_a_gpu_the_wheel_gives_a_typed_error(real: Any) -> None:
    if has_driver(real) and real.cudaGetDeviceCount()[0] == real.cudaError_t.cudaSuccess:
        pytest.skip("there is a GPU here")
    for _ in range(2):  # the second time, 12.6 and 12.2 say less
        with pytest.raises(CudaError, match=r"cudaSetDevice failed .*; .*(driver|GPU)"):
            open_device_memory(binding="cuda-python")
