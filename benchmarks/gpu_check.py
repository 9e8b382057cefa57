"""Checks on a GPU what this project's tests check on a CPU, and measures what it costs there. Needs no network.

    PYTHONPATH=$PWD python benchmarks/gpu_check.py --data Dataset900_OpenKBP -o benchmarks/results/gpu_check.json
    PYTHONPATH=$PWD python benchmarks/gpu_check.py --device cpu --quick -o trial.json
    PYTHONPATH=$PWD python benchmarks/gpu_report.py benchmarks/results/gpu_check.json --page      # as a page of the notebook

The most telling parts come first. Each is a process of its own, which is killed at its limit; what it had found by then is kept.
The file is written after each part. A part that is done there already is not run again. nnU-Net is called through Python, so its
commands need not be on the PATH. ``--data`` is the folder of an nnU-Net raw data set; without it nothing real is trained.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NEEDED = (
    *("nnunet_cil", "nnunetv2", "torch", "dynamic_network_architectures", "batchgenerators", "batchgeneratorsv2"),
    *("acvl_utils", "blosc2", "SimpleITK", "nibabel", "cc3d", "pydantic", "filelock", "psutil", "pandas", "scipy"),
    *("matplotlib", "skimage", "seaborn", "tqdm", "jinja2"),
)
"""Modules that the parts import."""

ON_A_CPU = 3
"""Times as long as on a GPU may a part take on a CPU, whose cores others may use, too."""

LEAST_S = 10
"""With less time left than this no part is started."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the check.

    Attributes:
        name: in the file.
        what: the function of gpu_parts.py.
        limit: the most seconds that it may take.
        kind: the network of the synthetic data, as in synthetic.py.
        old_classes: of the synthetic data.
        is_small: a small patch, at nnU-Net's size, too.
        compiled: with torch.compile.
    """

    name: str
    what: str
    limit: int
    kind: str = "3d"
    old_classes: int = 13
    is_small: bool = False
    compiled: bool = False


PARTS = (
    Part(name="losses", what="losses", limit=70),
    Part(name="cost_3d_13", what="cost", limit=100),
    Part(name="resume", what="resume", limit=60, old_classes=3, is_small=True),
    Part(name="training", what="training", limit=200),
    Part(name="compile", what="compile", limit=100, compiled=True),
    Part(name="cost_resenc_13", what="cost", limit=100, kind="resenc"),
    Part(name="cost_3d_117", what="cost", limit=100, old_classes=117),
    Part(name="cost_resenc_117", what="cost", limit=100, kind="resenc", old_classes=117),
)
"""The most telling first."""


def given(part: Part, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns a part's settings: nnU-Net's planned network and patch, or tiny ones."""
    patch = [16] * 3 if args.quick else [32] * 3 if part.is_small else [128] * 3
    return {
        "part": part.what,
        "device": args.device,
        "quick": args.quick,
        "data": None if args.data is None else str(args.data.resolve()),
        "kind": part.kind,
        "old_classes": part.old_classes,
        "patch": patch,
        "batch": 2,
        "features": [4, 8, 8] if args.quick else None,
        "steps": 2 if args.quick else 12,
        "warm_up": 1 if args.quick else 4,
        "epoch": 1 if args.quick else 16,
        "folder": str(folder),
    }


def environment(part: Part, args: argparse.Namespace, folder: Path) -> dict[str, str]:
    """Returns the environment of a part's process."""
    import synthetic

    from nnunet_cil.host.commands import user_environment

    cores = os.cpu_count() or 2
    with_workers = args.device == "cuda" and part.what in ("cost", "training")
    return {
        **user_environment(),
        **synthetic.environment(folder),
        "nnUNet_n_proc_DA": str(max(1, min(12, cores - 2))) if with_workers else "0",
        "nnUNet_def_n_proc": str(max(1, min(8, cores // 2))),
        "nnUNet_compile": "t" if part.compiled else "f",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # so that torch can be asked for determinism
        **({"OMP_WAIT_POLICY": "PASSIVE"} if args.device == "cpu" else {}),
    }


def run(part: Part, args: argparse.Namespace, work: Path, limit: float) -> dict[str, Any]:
    """Runs a part, at most as long as the limit; returns what it found, and how it ended."""
    from nnunet_cil.host.commands import log_end
    from nnunet_cil.host.processes import started

    folder = work / (f"{part.kind}_{part.old_classes}" if part.what in ("cost", "compile") else part.name)
    file, log = work / f"{part.name}.json", work / f"{part.name}.txt"
    settings = json.dumps(given(part, args, folder))
    command = [sys.executable, str(HERE / "gpu_parts.py"), settings, str(file)]
    begin = time.monotonic()
    with started(command, environment(part, args, folder), log) as process:
        try:
            process.wait(limit)
            status = "failed" if process.returncode else "done"
        except subprocess.TimeoutExpired:
            process.kill()
            status = "over its limit"
    found = json.loads(file.read_text()) if file.is_file() else {}
    if "skipped" in found:
        status = "skipped"
    result = {"status": status, "seconds": round(time.monotonic() - begin, 1), "limit": round(limit), "found": found}
    return result | ({"log": log_end(log)} if status == "failed" else {})


def limit_of(part: Part, args: argparse.Namespace) -> int:
    """Returns the most seconds that a part may take on the device."""
    return part.limit * (ON_A_CPU if args.device == "cpu" else 1)


def not_run(part: Part, args: argparse.Namespace, left: float) -> dict[str, Any] | None:
    """Returns the result of a part that is not to be run; None where it is."""
    why = None
    if part.what == "training" and args.data is None:
        why = "No real data: give an nnU-Net raw data set folder with --data."
    if part.compiled and args.device == "cpu":
        why = "nnU-Net compiles on CUDA only."
    if why is None and left >= LEAST_S:
        return None
    status = "no time left" if why is None else "skipped"
    return {"status": status, "seconds": 0.0, "limit": 0, "found": {} if why is None else {"skipped": why}}


def check(args: argparse.Namespace) -> dict[str, Any]:
    """Runs the parts that the file lacks; it is written after each."""
    content = earlier(args)
    end = time.monotonic() + 60 * args.minutes
    with tempfile.TemporaryDirectory(dir=args.scratch) as work:
        for part in PARTS:
            if args.parts and part.name not in args.parts:
                continue
            if content["parts"].get(part.name, {}).get("status") in ("done", "skipped"):
                continue
            left = end - time.monotonic()
            result = not_run(part, args, left) or run(part, args, Path(work), min(limit_of(part, args), left))
            content["parts"][part.name] = result
            content["machine"] = result["found"].get("machine", content["machine"])
            write(content, args.output)
            print(f"{part.name}: {said(result)}", file=sys.stderr, flush=True)
    return content


def said(result: dict[str, Any]) -> str:
    """Returns how a part ended, and why."""
    found, limit = result["found"], result["limit"]
    more = [found.get("skipped", ""), *found.get("too_large", []), result.get("log", "")]
    after = f" of {limit} s" if result["status"] == "over its limit" else ""
    return " ".join(filter(None, [f"{result['status']} after {result['seconds']:.0f} s{after}.", *more]))


def earlier(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the file's content where it is of the same kind of check; else an empty one."""
    own = {"device": args.device, "quick": args.quick}
    if args.output.is_file() and not args.again:
        content: dict[str, Any] = json.loads(args.output.read_text())
        if any(content.get(key) != value for key, value in own.items()):
            sys.exit(f"{args.output} is of another device, or of other sizes. Give another -o, or --again.")
        return content
    return {**own, "machine": {}, "parts": {}}


def write(content: dict[str, Any], output: Path) -> None:
    """Writes the file aside and moves it into place."""
    output.parent.mkdir(parents=True, exist_ok=True)
    aside = output.with_suffix(".tmp")
    aside.write_text(json.dumps(content, indent=1) + "\n")
    aside.replace(output)


def wrong(content: dict[str, Any]) -> list[str]:
    """Returns the parts that failed, or whose comparison with the CPU, or with an unbroken training, does not hold."""
    found = []
    for name, part in content["parts"].items():
        facts = part["found"]
        own = [facts, *facts.get("losses", []), *(v for v in facts.values() if isinstance(v, dict))]
        if part["status"] == "failed" or any(fact.get("ok") is False for fact in own):
            found.append(name)
    return found


def refuse_what_cannot_run(args: argparse.Namespace) -> None:
    """Stops before any time is spent where a module, the data or a GPU is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"Python does not find {', '.join(missing)}. Install nnunet_cil, or put these on the PYTHONPATH.")
    if args.data is not None and not (args.data / "dataset.json").is_file():
        sys.exit(f"{args.data} has no dataset.json. Give the folder of an nnU-Net raw data set, as Dataset900_OpenKBP.")
    if args.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            sys.exit("PyTorch finds no CUDA device. For a trial without one: --device cpu --quick.")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--quick", action="store_true", help="tiny networks and patches: tests this script itself")
    parser.add_argument("--data", type=Path, help="folder of an nnU-Net raw data set, for the short training")
    parser.add_argument("--minutes", type=float, default=8, help="that all parts may take (default: %(default)s)")
    parser.add_argument("--parts", nargs="+", choices=[part.name for part in PARTS], help="only these")
    parser.add_argument("--again", action="store_true", help="run anew what is in the output file")
    parser.add_argument("--scratch", type=Path, help="folder for temporary files (default: the system's)")
    parser.add_argument("-o", dest="output", type=Path, default=Path("gpu_check.json"), help="(default: %(default)s)")
    args = parser.parse_args()
    refuse_what_cannot_run(args)
    content = check(args)
    if names := wrong(content):
        sys.exit(f"Look at {', '.join(names)} in {args.output}.")


if __name__ == "__main__":
    main()
