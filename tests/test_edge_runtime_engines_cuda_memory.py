"""Both CUDA adapters on a pretended GPU: bytes, kinds, threads, failures, balance."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable

import numpy as np
import pytest
from fake_cuda.device import WORDS, FakeDevice
from fake_cuda.install import BINDINGS, install_fake_cuda

from edge_runtime.engines.closing import Closers
from edge_runtime.engines.cuda_memory import (
    DeviceFacts,
    DeviceMemory,
    choose_kind,
    find_bindings,
    open_device_memory,
)
from edge_runtime.errors import ConfigError, CudaError, EngineError

KINDS = ("mapped", "copy")


@pytest.fixture(params=BINDINGS)
def binding(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, binding: str) -> FakeDevice:
    return install_fake_cuda(monkeypatch, binding)


def double_on_device(device: FakeDevice, memory: DeviceMemory, address: int, n: int) -> None:
    """A kernel on the stream: every byte doubled in place."""

    def work() -> None:
        data = device.device_bytes(address, n)
        data[:] = data * 2

    device.enqueue(memory.stream_handle, work)


def use(device: FakeDevice, memory: DeviceMemory) -> list[int]:
    """Send bytes through a kernel and back."""
    block = memory.allocate(5)
    block.host[:] = [1, 2, 3, 4, 5]
    memory.upload(block)
    double_on_device(device, memory, block.address, 5)
    memory.download(block)
    memory.wait()
    return block.host.tolist()


@pytest.mark.parametrize("wait", ["blocking", "spin"])
@pytest.mark.parametrize("kind", KINDS)
def test_bytes_go_to_the_device_and_back(device: FakeDevice, kind: str, wait: str) -> None:
    memory = open_device_memory(memory=kind, wait=wait)
    assert memory.kind == kind
    assert use(device, memory) == [2, 4, 6, 8, 10]
    memory.close()
    assert device.left_over() == []
    assert device.violations == []


def test_mapped_memory_is_never_copied(device: FakeDevice) -> None:
    memory = open_device_memory(memory="mapped")
    use(device, memory)
    memory.close()
    assert not [call for call in device.calls if "emcpy" in call]


@pytest.mark.parametrize("kind", KINDS)
def test_new_memory_is_zero_on_both_sides(device: FakeDevice, kind: str) -> None:
    memory = open_device_memory(memory=kind)
    block = memory.allocate(100)
    memory.wait()
    assert not block.host.any()
    assert not device.device_bytes(block.address, 100).any()
    memory.close()


def test_results_are_there_only_after_waiting(device: FakeDevice) -> None:
    memory = open_device_memory()
    block = memory.allocate(1)
    block.host[0] = 3
    double_on_device(device, memory, block.address, 1)
    assert block.host[0] == 3  # the fake is not blind to a missing wait
    memory.wait()
    assert block.host[0] == 6
    memory.close()


def test_the_binding_and_the_device_are_named(device: FakeDevice, binding: str) -> None:
    memory = open_device_memory()
    assert memory.binding.startswith("pycuda" if binding == "pycuda" else "cuda-python")
    assert memory.facts == DeviceFacts(
        name="Orin",
        compute_capability=(8, 7),
        is_integrated=True,
        can_map_host_memory=True,
        cuda_version="12.6",
    )
    memory.close()
    assert device.left_over() == []


@pytest.mark.parametrize(
    ("is_integrated", "can_map", "wanted", "kind"),
    [
        (True, True, "auto", "mapped"),
        (True, False, "auto", "copy"),
        (False, True, "auto", "copy"),
        (False, False, "auto", "copy"),
        (False, True, "mapped", "mapped"),
        (True, True, "copy", "copy"),
    ],
)
def test_the_kind_is_chosen_by_probe(
    device: FakeDevice, is_integrated: bool, can_map: bool, wanted: str, kind: str
) -> None:
    device.is_integrated, device.can_map_host_memory = is_integrated, can_map
    memory = open_device_memory(memory=wanted)
    assert memory.kind == kind
    assert memory.kind_reason
    assert use(device, memory) == [2, 4, 6, 8, 10]
    memory.close()


def test_mapped_memory_that_cannot_be_is_refused(device: FakeDevice) -> None:
    device.can_map_host_memory = False
    with pytest.raises(EngineError, match=r"cannot map host memory; use 'copy'"):
        open_device_memory(memory="mapped")
    assert device.left_over() == []


def test_closing_twice_is_allowed_and_freed_memory_is_out_of_reach(device: FakeDevice) -> None:
    memory = open_device_memory()
    block = memory.allocate(8)
    memory.close()
    memory.close()
    assert block.host.size == 0
    assert device.violations == []


def test_a_graph_repeats_the_recorded_work(device: FakeDevice, binding: str) -> None:
    memory = open_device_memory(memory="copy")
    assert memory.can_capture == (binding != "pycuda")
    if not memory.can_capture:
        with pytest.raises(EngineError, match="no CUDA graphs"):
            memory.begin_capture()
        memory.close()
        return
    block = memory.allocate(2)
    memory.wait()
    memory.begin_capture()
    memory.upload(block)
    double_on_device(device, memory, block.address, 2)
    memory.download(block)
    memory.end_capture()
    for value in (3, 50):
        block.host[:] = value
        memory.launch_graph()
        memory.wait()
        assert block.host.tolist() == [2 * value] * 2
    memory.close()
    assert device.left_over() == []
    assert device.violations == []


def test_waiting_inside_a_capture_fails_and_the_stream_works_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = install_fake_cuda(monkeypatch, "cuda-python")
    memory = open_device_memory()
    memory.begin_capture()
    with pytest.raises(CudaError, match="cuda_graph=False"):
        memory.wait()
    memory.abandon_capture()
    assert use(device, memory) == [2, 4, 6, 8, 10]
    memory.close()


def count_calls(device: FakeDevice, kind: str) -> int:
    memory = open_device_memory(memory=kind)
    use(device, memory)
    memory.close()
    return len(device.calls)


@pytest.mark.parametrize("kind", KINDS)
def test_any_single_failure_is_typed_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, binding: str, kind: str
) -> None:
    total = count_calls(install_fake_cuda(monkeypatch, binding), kind)
    assert total > 15
    codes = sorted(WORDS)
    typed = 0
    for number in range(total):
        device = FakeDevice(fail_at={number: codes[number % len(codes)]})
        install_fake_cuda(monkeypatch, binding, device)
        typed += fails_typed(device, kind)
        gc.collect()
        assert device.left_over() == [], device.calls[number]
        assert device.violations == [], device.calls[number]
    # pycuda prints a failed release instead of raising it.
    assert typed >= total - 8


def fails_typed(device: FakeDevice, kind: str) -> bool:
    """Whether the injected failure came out; anything but a typed error fails the test."""
    message = ""
    memory = None
    try:
        memory = open_device_memory(memory=kind)
        use(device, memory)
    except CudaError as error:
        message = str(error)
    try:
        if memory is not None:
            memory.close()
    except CudaError as error:
        message = message or str(error)
    assert not message or "; " in message
    return bool(message)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("cudaErrorInsufficientDriver", "major version"),
        ("cudaErrorMemoryAllocation", "close other programs"),
        ("cudaErrorNoDevice", "no GPU here"),
        ("cudaErrorUnknown", "open it again"),
    ],
)
def test_a_code_has_its_remedy(device: FakeDevice, code: str, remedy: str) -> None:
    device.fail_at = {0: code}
    with pytest.raises(CudaError, match=remedy) as caught:
        open_device_memory()
    assert WORDS[code] in str(caught.value)


def test_no_gpu_is_said(device: FakeDevice) -> None:
    device.num_devices = 0
    with pytest.raises(CudaError, match="no GPU here"):
        open_device_memory()


def test_a_fault_of_a_kernel_comes_out_of_the_wait(device: FakeDevice) -> None:
    memory = open_device_memory()
    double_on_device(device, memory, 0x10, 4)
    with pytest.raises(CudaError, match="illegal memory access"):
        memory.wait()
    with pytest.raises(CudaError):
        memory.wait()  # it is not over: the fault stays with the context


def in_thread(work: Callable[[], object]) -> object:
    """What `work` returns or raises on another thread."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def test_the_fake_pycuda_is_not_blind_to_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    device = install_fake_cuda(monkeypatch, "pycuda")
    memory = open_device_memory()
    answer = in_thread(lambda: memory.allocate(4))
    assert isinstance(answer, CudaError)
    assert "owner thread" in str(answer)
    assert device.violations == ["cuMemHostAlloc outside the context's thread"]
    memory.close()


def test_no_binding_is_an_error_with_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_cuda(monkeypatch, "none")
    with pytest.raises(EngineError, match=r"cuda-python: not installed.*pycuda: not installed"):
        open_device_memory()
    assert set(find_bindings()) == {"cuda-python", "pycuda"}
    assert all(find_bindings().values())


def test_a_binding_asked_for_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_cuda(monkeypatch, "cuda-python")
    with pytest.raises(EngineError, match="pycuda: not installed"):
        open_device_memory(binding="pycuda")


def test_a_broken_binding_is_told_apart_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_fake_cuda(monkeypatch, "none")

    class Finder:
        @staticmethod
        def find_spec(name: str, *_: object) -> None:
            if name == "pycuda":
                raise ImportError("libcuda.so.1: cannot open shared object file")

    monkeypatch.delitem(sys.modules, "pycuda")
    monkeypatch.delitem(sys.modules, "pycuda.driver")
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    assert "cannot be imported (libcuda.so.1" in find_bindings()["pycuda"]


@pytest.mark.parametrize("setting", ["binding", "memory", "wait"])
def test_unknown_settings_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} is 'managed'; use one of"):
        open_device_memory(**{setting: "managed"})


@pytest.mark.parametrize("words", ["Failed to dlopen libcuda.so.1", 'Function "cuInit" not found'])
def test_a_driver_library_that_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """cuda-python 12.2 and 12.6 raise RuntimeError: one text at the first call, then the other."""
    install_fake_cuda(monkeypatch, "cuda-python-old")

    def fail(_number: int) -> None:
        raise RuntimeError(words)

    monkeypatch.setattr(sys.modules["cuda.cudart"], "cudaSetDevice", fail)
    with pytest.raises(CudaError, match="driver is not installed"):
        open_device_memory()


def test_every_release_runs_though_some_fail() -> None:
    done: list[int] = []

    def release(number: int) -> None:
        done.append(number)
        if number % 2:
            raise EngineError(f"number {number}")

    closers = Closers()
    for number in range(4):
        closers.push(lambda number=number: release(number))
    assert closers.close() == "number 3; number 1"
    assert done == [3, 2, 1, 0]
    assert closers.close() is None


def test_a_mistake_of_ours_is_raised_after_the_other_releases() -> None:
    done: list[int] = []
    closers = Closers()
    closers.push(lambda: done.append(0))
    closers.push(lambda: np.zeros(2)[5])
    with pytest.raises(IndexError):
        closers.close()
    assert done == [0]


def test_the_choice_needs_no_device() -> None:
    facts = DeviceFacts(
        name="x",
        compute_capability=(9, 0),
        is_integrated=False,
        can_map_host_memory=True,
        cuda_version="13.0",
    )
    assert choose_kind("auto", facts) == ("copy", "the GPU has its own memory")
