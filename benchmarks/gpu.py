"""The same measurements on CUDA, in one call: the loop against a plain one, the share of the device's rate, and paper-scale presets.

    python benchmarks/gpu.py --out benchmarks/results [--presets cgan-mnist cgan-mnist-paper] [--minutes 8]

Each result names the device. Without a CUDA device it says so and exits with 2; `--anyway` runs the same code on the CPU.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent


def call(*words: str) -> int:
    print("$", *words, flush=True)
    return subprocess.run([sys.executable, *words], check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--presets", nargs="*", default=["cgan-mnist", "vae-mnist", "cvae-mnist"])
    parser.add_argument("--minutes", type=float, default=8.0, help="no further preset is begun after this time")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--steps", type=int, default=None, help="instead of each preset's own")
    parser.add_argument("--anyway", action="store_true", help="without a CUDA device, run on the CPU")
    given = parser.parse_args()
    if not torch.cuda.is_available() and not given.anyway:
        print("gpu.py: no CUDA device here; --anyway runs on the CPU", file=sys.stderr)
        return 2
    began, tag = time.monotonic(), "gpu" if torch.cuda.is_available() else "cpu"
    given.out.mkdir(parents=True, exist_ok=True)
    failed = call(str(HERE / "train_step.py"), "--data", given.data, "--out", str(given.out / f"train_step-{tag}.json"))
    failed |= call(str(HERE / "limits.py"), "--data", given.data, "--out", str(given.out / f"limits-{tag}.json"))
    for preset in given.presets:
        if time.monotonic() - began > 60 * given.minutes:
            print(f"time is up: {preset} is not begun")
            continue
        run = str(given.runs / f"{preset}-{tag}")
        steps = ["--steps", str(given.steps)] if given.steps else []
        keep = [] if given.steps else ["--results", str(given.out / tag)]
        failed |= call("-m", "condgen", "train", preset, "--out", run, *steps) or call("-m", "condgen", "evaluate", run, *keep)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
