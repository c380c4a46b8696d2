"""Where the memory of a screening process goes: resident memory after every step, and its peak.

    python benchmarks/memory_stages.py --python build/camera/bin/python runs/demo/bundle photo.jpg

`--python` is the interpreter of a bare environment with the device wheel (see import_time.py).
One process walks through what `Screener` does, in its order, and reads /proc/self/status after
each step; another is the command `edge-screen screen` itself. MiB of 2**20 bytes. `file` is code
that the kernel shares with other processes and can drop; `anonymous` is the process's own.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

_STATUS = """
import json, os, sys
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
rows = []
def mark(step):
    with open("/proc/self/status") as file:
        found = dict(line.split(":", 1) for line in file)
    kib = {name: int(found[name].split()[0]) for name in ("VmRSS", "VmHWM", "RssAnon", "RssFile")}
    rows.append({"step": step, **{name: round(value / 1024, 1) for name, value in kib.items()}})
"""
WALK = f"""{_STATUS}
mark("Python")
import numpy
mark("import numpy")
import cv2
cv2.setNumThreads(1)
mark("import cv2")
from edge_runtime import Screener
mark("import Screener")
from cryptography.hazmat.primitives.serialization import load_pem_public_key
mark("import cryptography")
import onnxruntime
mark("import onnxruntime")
from pathlib import Path
bundle, photo, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
screener = Screener.open(bundle, engine="onnxruntime", allow_unproven_int8=True, **options)
mark("Screener.open")
screener.warmup()
mark("warmup")
for index in range(1, 4):
    result = screener.screen(photo)
    mark(f"picture {{index}}")
print(json.dumps({{"rows": rows, "ran": bool(result.eyes[0].fields[0].labels)}}))
"""
COMMAND = f"""{_STATUS}
import atexit
atexit.register(lambda: (mark("edge-screen screen"), print(json.dumps(rows), file=sys.stderr)))
from edge_runtime.cli import main
main(["screen", *sys.argv[1:], "--json", "--engine", "onnxruntime", "--allow-unproven-int8"])
"""


def main() -> int:
    """Parse, run the two processes, print; 1 when the command's peak is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--python", type=Path, default=Path(sys.executable))
    parser.add_argument("--trusted-keys", type=Path)
    parser.add_argument("--limit-mib", type=float, help="for the peak of `edge-screen screen`")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    inputs = [str(args.bundle.absolute()), str(args.photo.absolute())]
    python = str(args.python.absolute())
    rows = walk(python, inputs, args.trusted_keys) + command(python, inputs, args.trusted_keys)
    if args.json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print(
                f"  {row['step']:22} resident {row['VmRSS']:6.1f} MiB (anonymous "
                f"{row['RssAnon']:6.1f}, file {row['RssFile']:6.1f})   peak {row['VmHWM']:6.1f}"
            )
    return 1 if args.limit_mib is not None and rows[-1]["VmHWM"] > args.limit_mib else 0


def walk(python: str, inputs: list[str], keys: Path | None) -> list[dict[str, float]]:
    """Resident memory after every step of one process that screens."""
    options = {} if keys is None else {"trusted_keys": str(keys.absolute())}
    found = json.loads(run([python, "-c", WALK, *inputs, json.dumps(options)]).stdout)
    if not found["ran"]:
        raise SystemExit("the picture does not reach the model; give a gradable fundus photograph")
    return found["rows"]


def command(python: str, inputs: list[str], keys: Path | None) -> list[dict[str, float]]:
    """Resident memory of the command at its end, and its peak."""
    options = [] if keys is None else ["--trusted-keys", str(keys.absolute())]
    done = run([python, "-c", COMMAND, *inputs, *options])
    return json.loads(done.stderr.splitlines()[-1])


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run away from the repository; an ungradable picture (exit code 3) still has a peak."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if done.returncode not in (0, 3):
        raise SystemExit(f"exit code {done.returncode}: {done.stderr}")
    return done


if __name__ == "__main__":
    raise SystemExit(main())
