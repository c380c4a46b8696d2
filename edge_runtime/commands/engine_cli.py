"""The commands `edge-screen engine build`, `list` and `clear`, declared without heavy imports."""

from __future__ import annotations

from pathlib import Path

import click

from edge_runtime.commands.options import cache_dir_option, json_option, trusted_keys_option

__all__ = ["engine"]


@click.group(short_help="Build and keep TensorRT engines on this device.")
def engine() -> None:
    """Build TensorRT engines on this device, and look after those that are kept.

    An engine fits one TensorRT version and one GPU. It is a cache, never part of a bundle: after
    an update it is built again. Every command prints which folder it used.
    """


@engine.command(
    short_help="Build the engine of a bundle for this device.",
    epilog="\b\nExample:\n  edge-screen engine build BUNDLE --dry-run --for-version 10.3",
)
@click.argument("bundle", type=click.Path(path_type=Path), metavar="BUNDLE")
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp16", "fp32"]),
    default="int8",
    show_default=True,
)
@cache_dir_option
@click.option("--dry-run", is_flag=True, help="Print what would be built, and build nothing.")
@click.option(
    "--for-version",
    metavar="VERSION",
    help="With --dry-run: plan for this TensorRT, e.g. 10.3; none need be installed.",
)
@click.option("--rebuild", is_flag=True, help="Build even when a whole engine is there.")
@click.option(
    "--core",
    type=click.Choice(["gpu", "dla"]),
    default="gpu",
    show_default=True,
    help="The DLA is refused, with the reason.",
)
@trusted_keys_option
@json_option
def build(
    bundle: Path,
    precision: str,
    cache_dir: Path | None,
    dry_run: bool,
    for_version: str | None,
    rebuild: bool,
    core: str,
    trusted_keys: Path | None,
    as_json: bool,
) -> None:
    """Build the engine of a verified BUNDLE for the TensorRT and the GPU of this machine.

    It takes minutes, once; progress goes to stderr. When a whole engine is there already, nothing
    is built. --dry-run prints what would be built, and the same build as command lines of trtexec
    and Polygraphy.
    """
    from edge_runtime.commands.engine import BuildRequest, run_build

    if for_version is not None and not dry_run:
        raise click.UsageError(
            "--for-version is for --dry-run; an engine is built for what is here."
        )
    request = BuildRequest(
        bundle_dir=bundle,
        precision=precision,
        cache_dir=cache_dir,
        core=core,
        dry_run=dry_run,
        for_version=for_version,
        rebuild=rebuild,
        trusted_keys=trusted_keys,
    )
    run_build(request, as_json=as_json)


@engine.command(
    "list",
    short_help="List the engines that are kept here.",
    epilog="\b\nExample:\n  edge-screen engine list",
)
@cache_dir_option
@json_option
def list_(cache_dir: Path | None, as_json: bool) -> None:
    """List the engines that are kept, each checked, with the reason where one would not be used."""
    from edge_runtime.commands.engine import run_list

    run_list(cache_dir, as_json=as_json)


@engine.command(
    short_help="Remove kept engines.",
    epilog="\b\nExample:\n  edge-screen engine clear BUNDLE",
)
@click.argument("bundle", type=click.Path(path_type=Path), metavar="[BUNDLE]", required=False)
@click.option("--all", "everything", is_flag=True, help="Those of every bundle, and the timings.")
@cache_dir_option
@json_option
def clear(bundle: Path | None, everything: bool, cache_dir: Path | None, as_json: bool) -> None:
    """Remove the engines of BUNDLE, or with --all everything. They can be built again."""
    from edge_runtime.commands.engine import run_clear

    if (bundle is None) != everything:
        raise click.UsageError("Give either BUNDLE or --all.")
    run_clear(bundle, cache_dir, as_json=as_json)
