"""The installed TensorRT binding: found, and asked which of the names in our tables it has.

Everything that turns a name into an integer of the binding happens here. A name that the table
expects and the binding lacks is an error that says so, never a flag that is silently left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_runtime.errors import EngineError

if TYPE_CHECKING:
    from edge_runtime.engines.trt_recipe import EngineRecipe

__all__ = ["check_recipe", "import_tensorrt", "member", "network_bits", "tensorrt_version"]


def import_tensorrt() -> Any:
    """Return the module `tensorrt`.

    Raises:
        EngineError: It is not installed, or cannot be loaded.
    """
    try:
        import tensorrt
    except Exception as error:  # a wrong libnvinfer shows as ImportError, OSError or RuntimeError
        raise EngineError(
            f"TensorRT cannot be imported ({type(error).__name__}: {error}); on a Jetson it comes "
            "with JetPack: use a virtual environment made with --system-site-packages"
        ) from error
    return tensorrt


def tensorrt_version(trt: Any) -> str:
    """Return the version of the binding, e.g. "10.3.0"."""
    return str(trt.__version__)


def member(trt: Any, enumeration: str, name: str) -> Any:
    """Return a member of an enumeration of the binding by its name.

    Raises:
        EngineError: This version has no such member.
    """
    found = getattr(getattr(trt, enumeration), name, None)
    if found is None:
        raise EngineError(
            f"TensorRT {tensorrt_version(trt)} has no {enumeration}.{name}, which the table of "
            "this program expects; the table is wrong for this version: report it"
        )
    return found


def network_bits(trt: Any, names: tuple[str, ...]) -> int:
    """Return the bit mask of network flags; the bits differ between versions."""
    return sum(1 << int(member(trt, "NetworkDefinitionCreationFlag", name)) for name in names)


def check_recipe(trt: Any, recipe: EngineRecipe) -> None:
    """Check before a build that the binding has every name of the recipe.

    Raises:
        EngineError: It lacks one.
    """
    network_bits(trt, recipe.network_flags)
    for name in (*recipe.set_flags, *recipe.cleared_flags):
        member(trt, "BuilderFlag", name)
