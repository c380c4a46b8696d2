"""The command group: device commands at hand, workstation commands found by name when installed.

Workstation commands are entry points of the group `edge_screen.commands`. Listing their names
imports nothing; running one imports its `cli` module, which imports torch only when it runs.
Errors of the tree end here: their message goes to stderr, their exit code to the shell.
"""

from __future__ import annotations

import errno
import os
import sys
from importlib.metadata import EntryPoint, entry_points

import click

from edge_runtime.errors import EdgeScreenError

__all__ = ["ENTRY_POINT_GROUP", "CommandGroup"]

ENTRY_POINT_GROUP = "edge_screen.commands"
_MISSING_PACKAGE_EXIT_CODE = 1
_NO_OUTPUT_EXIT_CODE = 1
# Which extra of the workstation distribution a command needs; every other needs `train`.
_EXTRAS = {
    "calibrate": "calibrate",
    "demo": "export",
    "export": "export",
    "lint-onnx": "calibrate",
}
_OPTIONAL_PACKAGES = frozenset(
    {"onnx", "safetensors", "sklearn", "timm", "torch", "torchvision"}
    | {"calibration", "distill", "export", "train"}
)


class CommandGroup(click.Group):
    """A click group that adds installed workstation commands and formats our errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the sorted names of device and workstation commands; imports nothing."""
        return sorted({*super().list_commands(ctx), *_entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; a workstation command is imported here."""
        command = super().get_command(ctx, cmd_name)
        if command is not None:
            return command
        entry_point = _entry_points().get(cmd_name)
        return None if entry_point is None else _load(entry_point)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; end with the exit code of an error of the tree."""
        try:
            return super().invoke(ctx)
        except EdgeScreenError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            if error.errno == errno.EPIPE or not _is_of_echo(error):
                raise  # click ends a closed pipe by itself
            _drop_stdout()
            click.echo(
                f"error: the output cannot be written ({error.strerror}); free space or send it "
                "elsewhere, and start again",
                err=True,
            )
            ctx.exit(_NO_OUTPUT_EXIT_CODE)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in _OPTIONAL_PACKAGES:
                raise
            name = ctx.invoked_subcommand or "this command"
            click.echo(f"error: {_missing_text(name, package)}", err=True)
            ctx.exit(_MISSING_PACKAGE_EXIT_CODE)


def _is_of_echo(error: OSError) -> bool:
    """Whether `click.echo` itself raised it: what we print could not be written."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code is click.echo.__code__


def _drop_stdout() -> None:
    """Let go what is still buffered; the interpreter would fail on it once more at its end."""
    try:
        number = sys.stdout.fileno()
    except OSError:  # replaced by a stream without a file
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, number)
    os.close(nothing)


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _missing_text(command: str, package: str) -> str:
    extra = _EXTRAS.get(command, "train")
    return (
        f"`edge-screen {command}` needs the package {package!r}, which is not installed; "
        f"install the workstation distribution: pip install 'edge-screen[{extra}]'"
    )


def _load(entry_point: EntryPoint) -> click.Command:
    """Return the command, or one that says why it cannot run."""
    try:
        loaded = entry_point.load()
    except (ImportError, AttributeError) as error:
        return _broken_command(entry_point.name, error)
    if isinstance(loaded, click.Command):
        return loaded
    return _broken_command(entry_point.name, TypeError(f"{entry_point.value} is no command"))


def _broken_command(name: str, error: Exception) -> click.Command:
    text = f"`edge-screen {name}` cannot be loaded: {error}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        text = _missing_text(name, error.name.partition(".")[0])

    def refuse() -> None:
        click.echo(f"error: {text}", err=True)
        click.get_current_context().exit(_MISSING_PACKAGE_EXIT_CODE)

    return click.Command(
        name,
        callback=refuse,
        help=f"Not available here: {text}",
        short_help="(not available here)",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )
