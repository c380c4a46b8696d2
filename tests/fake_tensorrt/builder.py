"""The builder and its configuration: what they accept, and how they say no (None and False)."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from fake_tensorrt import graph
from fake_tensorrt.plan import FakePlan
from fake_tensorrt.sealing import Binding

_PRECISION_FLAGS = ("FP16", "INT8", "BF16", "FP8", "INT4", "FP4")
_CACHE_MAGIC = b"FAKECACHE"


class IOptimizationProfile(Binding):
    """Shapes (min, opt, max) by input name."""

    def __init__(self) -> None:
        super().__init__()
        self._shapes: dict[str, Any] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:  # the binding's names
        rows = [tuple(map(int, shape)) for shape in (min, opt, max)]
        ordered = all(a <= b <= c for a, b, c in zip(*rows, strict=True))
        if len({len(row) for row in rows}) != 1 or not ordered:
            raise RuntimeError("Shape provided for min is inconsistent with other shapes.")
        self._shapes[input] = rows

    def get_shape(self, input: str) -> list[Any]:
        return [self._fake.new("Dims", shape) for shape in self._shapes.get(input, [])]


class ITimingCache(Binding):
    """Which graphs were timed on which device by which version."""

    def __init__(self, owner: str, known: set[str]) -> None:
        super().__init__()
        self._owner, self._known = owner, known

    def serialize(self) -> Any:
        text = json.dumps([self._owner, sorted(self._known)]).encode()
        return self._fake.new("IHostMemory", _CACHE_MAGIC + text)

    def reset(self) -> bool:
        self._known.clear()
        return True


class IBuilderConfig(Binding):
    """Settings of one build; assigning an attribute that the version lacks raises."""

    def __init__(self) -> None:
        super().__init__()
        self._flags: set[str] = set()
        self._pools: dict[str, int] = {}
        self._profiles: list[Any] = []
        self._cache: Any = None
        self.builder_optimization_level = 3
        self.profiling_verbosity = self._fake.enum("ProfilingVerbosity")["LAYER_NAMES_ONLY"]
        self.hardware_compatibility_level = self._fake.enum("HardwareCompatibilityLevel")["NONE"]
        if "progress_monitor" in type(self)._members:
            self.progress_monitor = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(_member(self._fake, "BuilderFlag", flag).name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def get_flag(self, flag: Any) -> bool:
        return flag.name in self._flags

    @property
    def flags(self) -> int:
        return sum(1 << int(self._fake.enum("BuilderFlag")[name]) for name in self._flags)

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self._pools[_member(self._fake, "MemoryPoolType", pool).name] = int(pool_size)

    def get_memory_pool_limit(self, pool: Any) -> int:
        return self._pools.get(pool.name, self._fake.device_memory_bytes)

    def add_optimization_profile(self, profile: Any) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._profiles)

    def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
        data = bytes(serialized_timing_cache)
        if not data:
            return self._fake.new("ITimingCache", self._fake.owner, set())
        if not data.startswith(_CACHE_MAGIC):
            return None
        try:
            owner, known = json.loads(data[len(_CACHE_MAGIC) :])
        except ValueError:
            return None
        return self._fake.new("ITimingCache", owner, set(known))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache._owner != self._fake.owner and not ignore_mismatch:
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class Builder(Binding):
    """Makes networks, configurations and plans; a build that fails returns None."""

    _constructible = True

    def __init__(self, logger: Any) -> None:
        super().__init__()
        self._logger = logger

    @property
    def platform_has_fast_fp16(self) -> bool:
        return True

    @property
    def platform_has_fast_int8(self) -> bool:
        return True

    @property
    def num_DLA_cores(self) -> int:
        return self._fake.num_dla_cores

    def create_network(self, flags: int = 0) -> Any:
        members = self._fake.enum("NetworkDefinitionCreationFlag")
        bits = int(flags)
        names = frozenset(one.name for one in members if bits >> int(one) & 1)
        if bits != sum(1 << int(members[name]) for name in names):
            self._say("ERROR", f"unknown network flags {bits:#x}")
            return None
        return self._fake.new("INetworkDefinition", self, names)

    def create_builder_config(self) -> Any:
        return self._fake.new("IBuilderConfig")

    def create_optimization_profile(self) -> Any:
        return self._fake.new("IOptimizationProfile")

    def is_network_supported(self, network: Any, config: Any) -> bool:
        return self._objection(network, config) is None

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        objection = self._objection(network, config)
        if objection is not None:
            self._say("ERROR", objection)
            return None
        if not self._report_progress(network, config):
            self._say("ERROR", "the build was cancelled by the progress monitor")
            return None
        return self._fake.new("IHostMemory", self._plan(network, config).to_bytes())

    def _plan(self, network: Any, config: Any) -> FakePlan:
        return FakePlan(
            version=self._fake.version,
            device=self._fake.device_name,
            compute_capability=self._fake.compute_capability,
            strongly_typed=network._strongly_typed,
            flags=tuple(sorted(config._flags)),
            verbosity=config.profiling_verbosity.name,
            profiles=tuple(one._shapes for one in config._profiles),
            onnx=network._onnx,
        )

    def _objection(self, network: Any, config: Any) -> str | None:
        """Why this network cannot be built with this configuration, or None."""
        if network._onnx is None:
            return "Network must have at least one output"
        asked = [name for name in _PRECISION_FLAGS if name in config._flags]
        if network._strongly_typed and asked:
            return f"builder flags {asked} are not allowed in a strongly typed network"
        quantised = graph.has_quantisation(network._onnx)
        if not network._strongly_typed and quantised and "INT8" not in asked:
            return "the network has Q/DQ layers, and INT8 is not enabled"
        if config._pools.get("WORKSPACE", 1 << 40) < self._fake.min_workspace_bytes:
            return "Could not find any implementation for node Conv_0 due to insufficient workspace"
        return self._profile_objection(network, config)

    def _profile_objection(self, network: Any, config: Any) -> str | None:
        inputs = {one.name: one.shape for one in network._tensors if one.is_input}
        dynamic = [name for name, shape in inputs.items() if -1 in shape]
        for name in dynamic:
            if not config._profiles or any(name not in one._shapes for one in config._profiles):
                return f"Network has dynamic input {name}, but no optimization profile covers it"
        for profile in config._profiles:
            for name, rows in profile._shapes.items():
                if name not in inputs or not all(_fits(inputs[name], row) for row in rows):
                    return f"the profile of {name} does not fit the network"
        return None

    def _report_progress(self, network: Any, config: Any) -> bool:
        """Tell the monitor, and use the timing cache; False when the monitor stops the build."""
        digest = hashlib.sha256(network._onnx).hexdigest()
        cache, monitor = config._cache, getattr(config, "progress_monitor", None)
        hit = cache is not None and digest in cache._known
        self._say("INFO", f"timing cache {'hit' if hit else 'miss'}")
        if cache is not None:
            cache._known.add(digest)
        if monitor is None:
            return True
        steps = 1 if hit else len(graph.layer_names(network._onnx))
        monitor.phase_start("Building Engine", None, 2)
        monitor.phase_start("Tactic Selection", "Building Engine", steps)
        goes_on = all(monitor.step_complete("Tactic Selection", step) for step in range(steps))
        monitor.phase_finish("Tactic Selection")
        goes_on = goes_on and monitor.step_complete("Building Engine", 1)
        monitor.phase_finish("Building Engine")
        return goes_on

    def _say(self, severity: str, text: str) -> None:
        self._fake.log(self._logger, severity, text)


def _fits(declared: tuple[int, ...], given: tuple[int, ...]) -> bool:
    same_rank = len(declared) == len(given)
    return same_rank and all(d in (-1, g) for d, g in zip(declared, given, strict=True))


def _member(fake: Any, cls: str, value: Any) -> Any:
    """The member, or the binding's TypeError for anything else, such as a plain integer."""
    if not isinstance(value, fake.enum(cls)):
        raise TypeError(f"incompatible function arguments: {value!r} is no {cls}")
    return value
