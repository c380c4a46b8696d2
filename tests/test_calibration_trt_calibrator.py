"""TensorRT's implicit INT8 calibration against a stand-in that calls back as the builder does."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from fake_tensorrt.census import present_in, versions
from fake_tensorrt.fake import VERSIONS, FakeTensorRT

from calibration.trt_calibrator import CLASSES, PycudaBuffer, implicit_calibrator
from edge_runtime.errors import ConfigError, EngineError

IMAGES = [np.full((4, 4, 3), value, np.uint8) for value in (1, 2, 3)]


class Buffer:
    def __init__(self) -> None:
        self.uploads: list[np.ndarray] = []
        self.closed = 0

    def upload(self, array):
        self.uploads.append(array.copy())
        return 4096 + len(self.uploads)

    def close(self):
        self.closed += 1


class Base:
    """TensorRT's classes raise TypeError when a subclass forgets their constructor."""

    def __init__(self) -> None:
        self.constructed = True


def build(calibrator, names=("image_nhwc",)) -> tuple[list[list[int]], bytes | None]:
    """What `build_serialized_network` does with a calibrator."""
    assert calibrator.constructed
    assert calibrator.get_batch_size() == 1
    cache = calibrator.read_calibration_cache()
    if cache is not None:
        return [], cache
    batches = []
    while (batch := calibrator.get_batch(list(names))) is not None:
        batches.append(batch)
    calibrator.write_calibration_cache(memoryview(b"TRT-8601-made"))
    return batches, None


@pytest.fixture
def tensorrt(monkeypatch):
    module = ModuleType("tensorrt")
    module.__version__ = "8.6.1"
    for name in CLASSES.values():
        setattr(module, name, type(name, (Base,), {}))
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return module


@pytest.mark.parametrize("algorithm", CLASSES)
def test_every_image_is_fed_once_and_the_cache_is_written(tensorrt, algorithm, tmp_path):
    buffer, path = Buffer(), tmp_path / "cache"
    with implicit_calibrator(
        IMAGES, cache_path=path, algorithm=algorithm, buffer=buffer
    ) as calibrator:
        assert isinstance(calibrator, getattr(tensorrt, CLASSES[algorithm]))
        batches, _ = build(calibrator)
        assert not buffer.closed
    assert batches == [[4097], [4098], [4099]]
    np.testing.assert_array_equal(np.concatenate(buffer.uploads), np.stack(IMAGES))
    assert path.read_bytes() == b"TRT-8601-made"
    assert buffer.closed == 1


@pytest.mark.usefixtures("tensorrt")
def test_a_cache_that_exists_is_used_instead_of_images(tmp_path):
    path = tmp_path / "cache"
    path.write_bytes(b"TRT-8601-old")
    with implicit_calibrator(IMAGES, cache_path=path, buffer=Buffer()) as calibrator:
        assert build(calibrator) == ([], b"TRT-8601-old")


@pytest.mark.usefixtures("tensorrt")
def test_a_failing_image_ends_the_block_with_an_error_and_no_cache(tmp_path):
    def stream():
        yield IMAGES[0]
        raise OSError("disk is gone")

    buffer = Buffer()
    with (
        pytest.raises(EngineError, match="disk is gone"),
        implicit_calibrator(stream(), cache_path=tmp_path / "c", buffer=buffer) as calibrator,
    ):
        build(calibrator)
    assert calibrator.get_batch(["image_nhwc"]) is None
    assert not (tmp_path / "c").exists()
    assert buffer.closed == 1


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.parametrize(
    ("images", "names", "word"),
    [([], ["image_nhwc"], "no image"), (IMAGES, ["a", "b"], "inputs")],
)
def test_no_image_and_more_than_one_input_are_refused(images, names, word, tmp_path):
    with (
        pytest.raises(EngineError, match=word),
        implicit_calibrator(images, cache_path=tmp_path / "c", buffer=Buffer()) as calibrator,
    ):
        build(calibrator, names)


@pytest.mark.usefixtures("tensorrt")
def test_an_unwritable_cache_is_told(tmp_path):
    path = tmp_path / "no" / "cache"
    with (
        pytest.raises(EngineError, match="ended early"),
        implicit_calibrator(IMAGES, cache_path=path, buffer=Buffer()) as calibrator,
    ):
        build(calibrator)


@pytest.mark.usefixtures("tensorrt")
def test_an_error_of_the_build_is_not_replaced(tmp_path):
    buffer = Buffer()
    with (
        pytest.raises(ZeroDivisionError),
        implicit_calibrator(IMAGES, cache_path=tmp_path / "c", buffer=buffer),
    ):
        raise ZeroDivisionError
    assert buffer.closed == 1


@pytest.mark.parametrize("name", CLASSES.values())
def test_published_bindings_of_8_and_10_have_what_is_overridden_and_11_has_not(name):
    implicit = tuple(version for version in versions() if int(version.split(".")[0]) < 11)
    members = ("get_batch_size", "get_batch", "read_calibration_cache", "write_calibration_cache")
    for path in (name, *(f"{name}.{member}" for member in members)):
        assert present_in(path) == implicit
    assert present_in("IBuilderConfig.int8_calibrator") == implicit


@pytest.mark.parametrize("version", [v for v in VERSIONS if v.startswith("11")])
def test_the_names_of_tensorrt_11_are_refused(version, tmp_path):
    with (
        FakeTensorRT(version).installed(),
        pytest.raises(EngineError, match=f"{version}.* has no IInt8EntropyCalibrator2"),
        implicit_calibrator(IMAGES, cache_path=tmp_path / "c", buffer=Buffer()),
    ):
        pass


def test_tensorrt_11_is_refused_with_the_way_that_works(tensorrt, tmp_path):
    tensorrt.__version__ = "11.4.0"
    for name in CLASSES.values():
        delattr(tensorrt, name)
    with (
        pytest.raises(EngineError, match=r"11\.4\.0 has no IInt8Entropy.*model\.int8\.onnx"),
        implicit_calibrator(IMAGES, cache_path=tmp_path / "c", buffer=Buffer()),
    ):
        pass


def test_no_tensorrt_and_an_unknown_algorithm_are_refused(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with (
        pytest.raises(EngineError, match="TensorRT cannot be imported"),
        implicit_calibrator(IMAGES, cache_path=tmp_path / "c", buffer=Buffer()),
    ):
        pass
    with (
        pytest.raises(ConfigError, match="Legacy"),
        implicit_calibrator(IMAGES, cache_path=tmp_path / "c", algorithm="Legacy"),
    ):
        pass


@pytest.fixture
def cuda(monkeypatch):
    """pycuda.driver that counts what is taken and given back."""
    calls: list[str] = []

    class Memory:
        def __init__(self, size):
            calls.append(f"alloc {size}")

        def free(self):
            calls.append("free")

        def __int__(self):
            return 4096

    context = SimpleNamespace(
        push=lambda: calls.append("push"),
        pop=lambda: calls.append("pop"),
        detach=lambda: calls.append("detach"),
    )
    driver = ModuleType("pycuda.driver")
    driver.init = lambda: calls.append("init")
    driver.Device = lambda _: SimpleNamespace(retain_primary_context=lambda: context)
    driver.mem_alloc = Memory
    driver.memcpy_htod = lambda _, array: calls.append(f"copy {array.nbytes}")
    monkeypatch.setitem(sys.modules, "pycuda", ModuleType("pycuda"))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return calls


def test_pycuda_memory_is_taken_once_and_given_back(cuda):
    buffer = PycudaBuffer()
    for image in IMAGES:
        assert buffer.upload(image[None]) == 4096
    buffer.close()
    buffer.close()
    copies = ["copy 48"] * 3
    assert cuda == ["init", "push", "alloc 48", *copies, "free", "pop", "detach"]


def test_memory_follows_the_size(cuda):
    buffer = PycudaBuffer()
    buffer.upload(np.zeros((1, 4, 4, 3), np.uint8))
    buffer.upload(np.zeros((1, 8, 8, 3), np.uint8))
    buffer.close()
    assert [call for call in cuda if call[:4] in ("allo", "free")] == [
        "alloc 48",
        "free",
        "alloc 192",
        "free",
    ]


def test_without_pycuda_or_a_device_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(EngineError, match="pycuda cannot be used"):
        PycudaBuffer()
