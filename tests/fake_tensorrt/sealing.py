"""Makes a class of the fake behave as a class of one version's binding.

A sealed class shows exactly the public names of its census: any other is an AttributeError, on
the class, on an object, and on assignment (the real classes take no new attributes). A name that
the census has and the fake lacks is a NotImplementedError: extend the fake. Every call of a public
method goes through `FakeTensorRT.before_call`, which counts it and lets it fail when asked.
Subclasses that the code under test writes (a progress monitor, a logger) are ordinary classes.
"""

from __future__ import annotations

import functools
import types
import weakref
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

if TYPE_CHECKING:
    from fake_tensorrt.fake import FakeTensorRT


class SealedType(type):
    """Type of every class of the fake module."""

    def __getattribute__(cls, name: str) -> Any:
        if name.startswith("_") or "_members" not in type.__getattribute__(cls, "__dict__"):
            return super().__getattribute__(name)
        _require_member(cls, name)
        return super().__getattribute__(name)

    def __getattr__(cls, name: str) -> Any:
        """A member that the fake only lacks is there for `hasattr`, and says so when it is used."""
        if name.startswith("_") or name not in cls.__dict__.get("_members", ()):
            raise AttributeError(f"{cls.__name__!r} has no attribute {name!r}")
        return functools.partial(_extend_me, f"{cls.__name__}.{name}")

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        fake: FakeTensorRT = cls._fake
        if "_members" in cls.__dict__:
            if not cls._constructible:
                raise TypeError(f"tensorrt.tensorrt.{cls.__name__}: No constructor defined!")
            fake.before_call(cls.__name__)
        made = super().__call__(*args, **kwargs)
        if not made.__dict__.get("_initialised"):
            raise TypeError(f"{cls.__name__}.__init__() must be called when overriding __init__")
        return made


class Binding(metaclass=SealedType):
    """Base of the implementations; `FakeTensorRT` derives the sealed classes from them."""

    _fake: ClassVar[FakeTensorRT]
    _members: ClassVar[frozenset[str]]
    _constructible = False

    def __init__(self) -> None:
        self.__dict__["_initialised"] = True
        name = type(self).__name__
        alive = self._fake.alive
        alive[name] += 1
        weakref.finalize(self, alive.subtract, (name,)).atexit = False

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("_"):
            return object.__getattribute__(self, name)
        cls = type(self)
        if "_members" not in cls.__dict__:
            return object.__getattribute__(self, name)
        _require_member(cls, name)
        value = object.__getattribute__(self, name)
        if not isinstance(value, types.MethodType):
            return value
        return _counted(cls._fake, f"{cls.__name__}.{name}", value)

    def __getattr__(self, name: str) -> Any:
        cls = type(self)
        if not name.startswith("_") and name in cls._members:
            _extend_me(f"{cls.__name__}.{name}")
        raise AttributeError(f"{cls.__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        cls = type(self)
        if not name.startswith("_") and "_members" in cls.__dict__:
            _require_member(cls, name)
        object.__setattr__(self, name, value)


def sealed(fake: FakeTensorRT, implementation: type[Binding], name: str) -> type[Binding]:
    """Return the class `name` of the fake's version."""
    members = fake.census.members(name)
    body = {"_members": members, "_fake": fake, "__module__": "tensorrt.tensorrt"}
    made: type[Binding] = SealedType(name, (implementation,), body)
    return made


def _extend_me(path: str, *args: Any, **kwargs: Any) -> NoReturn:
    del args, kwargs
    raise NotImplementedError(f"the fake has no {path} yet; extend it")


def _require_member(cls: type[Any], name: str) -> None:
    if name not in cls._members:
        version = cls._fake.version
        raise AttributeError(
            f"'tensorrt.tensorrt.{cls.__name__}' has no attribute {name!r} in TensorRT {version}"
        )


def _counted(fake: FakeTensorRT, path: str, method: Any) -> Any:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        outcome = fake.before_call(path)
        return method(*args, **kwargs) if outcome is None else outcome.value

    return call
