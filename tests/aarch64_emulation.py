"""The device wheel on aarch64 under user-mode emulation: does it install, verify, and decide alike?

    python tests/aarch64_emulation.py --bundle runs/demo/bundle --images runs/demo/data/camera

Builds an arm64 Debian tree, installs the device wheel in it from aarch64 wheels alone, and runs
`doctor`, `verify` and `screen` there under the instruction sets of several processors; `screen`
runs here, too, and every decision is compared. Emulation is not hardware: it shows that the wheels
install and that aarch64 kernels decide alike, and nothing about time or memory.

Needs root (chroot), Debian's debootstrap, qemu-user-static and binfmt-support, and a Debian mirror
and a Python package index in reach. A tree that is complete is used again. No test: `make
wheel-aarch64` runs it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camera_environment import ROOT, build_wheel

SUITE = "bookworm"
BINFMT = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
# Without integer dot products (Jetson Nano); with them (Jetson Orin has an A78AE); with everything.
PROCESSORS = ("cortex-a57", "cortex-a76", "max")
# What pip of the tree would accept there; the newest glibc first.
PLATFORMS = (
    "manylinux_2_34",
    "manylinux_2_28",
    "manylinux_2_27",
    "manylinux_2_17",
    "manylinux2014",
)
INPUTS = """
import hashlib, json, sys
from pathlib import Path
from edge_runtime.bundle import read_bundle
from edge_runtime.preprocess import load_for_model
spec = read_bundle(Path("bundle"), trusted_keys=None).manifest.preprocess_spec()
digests = []
for name in sys.argv[1:]:
    try:
        image = load_for_model(Path(name).read_bytes(), spec)[1].image_hwc
        digests.append(hashlib.sha256(image.tobytes()).hexdigest())
    except Exception as error:
        digests.append(type(error).__name__)
print(json.dumps(digests))
"""  # the SHA-256 of every picture's model input, or why there is none
COMPLETE = "edge-screen-tree"  # a file in the tree, written last


def main() -> int:
    """Make the tree, install, run, compare; 1 when a check fails or a decision differs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, help="trusted_keys lies beside it")
    parser.add_argument("--images", type=Path, required=True, help="a folder of photographs")
    parser.add_argument("--num-images", type=int, default=50, help="at most so many, by name")
    parser.add_argument("--tree", type=Path, default=ROOT / "build" / "aarch64")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--cpu", action="append", metavar="NAME", help="as qemu names it")
    args = parser.parse_args()
    tree = args.tree.resolve()
    require_machine()
    make_tree(tree, args.mirror)
    install(tree)
    images = sorted(path for path in args.images.iterdir() if path.is_file())[: args.num_images]
    names = copy_work(tree, args.bundle, images)
    here = Answers(
        inputs=json.loads(outside(tree, sys.executable, "-c", INPUTS, *names)),
        results=screened(outside(tree, sys.executable, "-m", "edge_runtime", *screening(names))),
    )
    print(f"{len(names)} pictures; here: {platform.machine()}")
    return max([check(tree, cpu, names, here) for cpu in args.cpu or PROCESSORS])


def require_machine() -> None:
    """Stop where something is missing, with the remedy."""
    if os.geteuid() != 0:
        raise SystemExit("chroot needs root; run as root")
    if shutil.which("debootstrap") is None:
        raise SystemExit("debootstrap is not installed; apt-get install debootstrap")
    if platform.machine() != "aarch64" and not (
        BINFMT.is_file() and BINFMT.read_text().startswith("enabled")
    ):
        raise SystemExit(
            f"the kernel runs no aarch64 programs ({BINFMT.name} is not registered); apt-get "
            "install qemu-user-static binfmt-support, mount binfmt_misc on its folder below /proc, "
            "then update-binfmts --enable qemu-aarch64"
        )


def make_tree(tree: Path, mirror: str) -> None:
    """Unpack Debian's arm64 packages; their installation scripts, slow to emulate, do not run."""
    if (tree / COMPLETE).is_file():
        print(f"using the arm64 tree at {tree}")
        return
    print(f"making an arm64 tree of Debian {SUITE} at {tree} (minutes)")
    options = ["--arch=arm64", "--variant=minbase", "--foreign", "--include=python3,python3-venv"]
    run("debootstrap", *options, SUITE, str(tree), mirror)
    for package in sorted((tree / "var" / "cache" / "apt" / "archives").glob("*.deb")):
        unpack = ["tar", "-x", "--keep-directory-symlink", "-C", str(tree)]
        tarball = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
        )
        subprocess.run(unpack, stdin=tarball.stdout, check=True)
        if tarball.wait() != 0:
            raise SystemExit(f"{package.name} cannot be unpacked; remove {tree} and start again")
    (tree / COMPLETE).touch()


def install(tree: Path) -> None:
    """Fetch wheels for the tree's Python with the pip of here, install with the pip of there."""
    version = inside(tree, "python3", "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    wheels = tree / "wheels"
    shutil.rmtree(wheels, ignore_errors=True)
    wheels.mkdir()
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(ROOT / "edge_runtime", Path(folder))
        options = ["--only-binary=:all:", "--python-version", version.strip(), "-d", str(wheels)]
        options += ["--disable-pip-version-check", "-q", "-c", str(ROOT / "constraints.txt")]
        options += [f"--platform={name}_aarch64" for name in PLATFORMS]
        run(sys.executable, "-m", "pip", "download", *options, str(wheel))
    print(f"installing under emulated Python {version.strip()} (minutes)")
    shutil.rmtree(tree / "venv", ignore_errors=True)
    inside(tree, "python3", "-m", "venv", "/venv")
    offline = ["--no-index", "--find-links", "/wheels", "--disable-pip-version-check", "-q"]
    inside(tree, "/venv/bin/pip", "install", *offline, "edge-screen-runtime")


def copy_work(tree: Path, bundle: Path, images: Sequence[Path]) -> list[str]:
    """Copy bundle, keys and pictures into the tree; return the pictures' paths below /work."""
    if not images:
        raise SystemExit("no picture there; give --images a folder of photographs")
    work = tree / "work"
    shutil.rmtree(work, ignore_errors=True)
    (work / "images").mkdir(parents=True)
    shutil.copytree(bundle, work / "bundle")
    shutil.copytree(bundle.parent / "trusted_keys", work / "trusted_keys")
    for image in images:
        shutil.copy(image, work / "images")
    return [f"images/{image.name}" for image in images]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one machine makes of the pictures: SHA-256 of each model input, and the results."""

    inputs: list[str]
    results: list[dict[str, Any]]


def check(tree: Path, cpu: str, names: Sequence[str], here: Answers) -> int:
    """Run everything as one processor; print what came out; 0 when all is well."""
    command = "/venv/bin/edge-screen"
    doctor = json.loads(inside(tree, command, "doctor", "--json", cpu=cpu))
    verified = inside(tree, command, "verify", "bundle", cpu=cpu, allowed=(0, 10))
    there = Answers(
        inputs=json.loads(inside(tree, "/venv/bin/python", "-c", INPUTS, *names, cpu=cpu)),
        results=screened(inside(tree, command, *screening(names), cpu=cpu, allowed=(0, 3))),
    )
    print(
        f"\n{cpu}: {doctor['system']}, Python {doctor['python']}, "
        f"can screen: {doctor['can_screen']}"
    )
    print("\n".join(line for line in verified.splitlines() if line.startswith("  ")))
    other = sum(one != two for one, two in zip(here.inputs, there.inputs, strict=True))
    differing, largest = compare(here.results, there.results)
    print(f"  {other} of {len(names)} model inputs are not the same bytes as here")
    print(f"  {differing} of {len(names)} decided otherwise, largest difference {largest:.2e}")
    is_fine = doctor["can_screen"] and "\nVERIFIED" in verified and other == differing == 0
    return 0 if is_fine else 1


def compare(
    here: Sequence[Mapping[str, Any]], there: Sequence[Mapping[str, Any]]
) -> tuple[int, float]:
    """Return how many pictures are decided otherwise, and the largest difference of a probability.

    A picture counts when the disposition, a label's decision or a reason differs.
    """
    differing, largest = 0, 0.0
    for one, other in zip(here, there, strict=True):
        differing += decision(one) != decision(other)
        for field, twin in zip(fields(one), fields(other), strict=True):
            for label, same in zip(field["labels"], twin["labels"], strict=False):
                largest = max(largest, abs(label["probability"] - same["probability"]))
    return differing, largest


def fields(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The pictures of a result, eye by eye."""
    return [field for eye in result["eyes"] for field in eye["fields"]]


def decision(result: Mapping[str, Any]) -> tuple[object, ...]:
    """What a doctor would read in a result."""
    pictures = [
        (one["disposition"], one["quality"]["reasons"], [it["decision"] for it in one["labels"]])
        for one in fields(result)
    ]
    return result["disposition"], pictures


def screening(names: Sequence[str]) -> list[str]:
    """Return the command that screens the pictures, one result a line."""
    options = ["--json", "--allow-unproven-int8", "--engine", "onnxruntime"]
    return ["screen", "bundle", *names, *options]


def screened(printed: str) -> list[dict[str, Any]]:
    """Return the results that the command printed."""
    return [json.loads(line) for line in printed.splitlines()]


def outside(tree: Path, *command: str) -> str:
    """Run a command of here in the tree's /work, with this repository's code."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tree / "work", env=environment, capture_output=True, text=True, check=False
    )
    return output(done, allowed=(0, 3))


def inside(
    tree: Path, *command: str, cpu: str = PROCESSORS[-1], allowed: Sequence[int] = (0,)
) -> str:
    """Run a command in /work of the tree as one processor; return what it prints."""
    (tree / "work").mkdir(exist_ok=True)
    clean = ["/usr/bin/env", "-i", "-C", "/work", "PATH=/usr/bin", "HOME=/root", "LANG=C.UTF-8"]
    done = subprocess.run(
        ["chroot", str(tree), *clean, f"QEMU_CPU={cpu}", *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return output(done, allowed)


def output(done: subprocess.CompletedProcess[str], allowed: Sequence[int]) -> str:
    """Return what a process printed; stop with its errors when it failed."""
    if done.returncode not in allowed:
        words = " ".join(map(str, done.args))
        raise SystemExit(f"exit code {done.returncode} of {words}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def run(*command: str) -> None:
    """Run a command of here; stop when it fails."""
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} ended with exit code {done.returncode}")


if __name__ == "__main__":
    raise SystemExit(main())
