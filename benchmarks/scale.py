"""Trains many steps to many classes on synthetic data, and measures each: time, memory, checkpoint. Needs no data.

    python benchmarks/scale.py -o benchmarks/results/scale.json
    python benchmarks/scale.py -o benchmarks/results/scale.json --table FILE

Every step is a whole training as nnUNetv2_train runs it, of a few iterations and with a small network: the teacher's volumes and
prototypes, iterations, checkpoint, final validation. Nothing but the number of classes changes from step to step.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import cost_report
import synthetic
from step_cost import seconds_of

ITERATIONS = 8
WARM_UP = 2
"""First iterations, which are left out of the mean."""


def steps_of(num_classes: int, num_steps: int) -> list[dict[str, list[str]]]:
    """Returns the steps of a schedule: the same number of classes each, the rest in the first."""
    names, own = synthetic.class_names(num_classes), num_classes // num_steps
    first = num_classes - own * (num_steps - 1)
    cuts = [0, *range(first, num_classes + 1, own)]
    return [{"classes": names[a:b]} for a, b in itertools.pairwise(cuts)]


def plan_schedule(root: Path, trainer: str | None, steps: list[dict[str, list[str]]]) -> list[str]:
    """Plans the steps; returns the names of their plans."""
    from nnunet_cil.workflows.plan.plan import plan

    schedule = root / "schedule.json"
    training = {"num_epochs": 1, "num_iterations_per_epoch": ITERATIONS, "num_val_iterations_per_epoch": 1}
    schedule.write_text(json.dumps({"name": synthetic.SCHEDULE, "steps": steps, "training": training}))
    return [step.plans_name for step in plan(synthetic.DATASET, schedule, first_trainer=trainer)]


def peak_mib() -> float:
    """Returns the most memory of this process since ``forget_peak``."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10


def forget_peak() -> None:
    """Lets the kernel begin anew with the most memory of this process."""
    Path("/proc/self/clear_refs").write_text("5")


def timed(work: Callable[..., Any], seconds: list[float], cuda: bool) -> Callable[..., Any]:
    """Returns the same function, which notes the CPU seconds (the clock's on CUDA) of each call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        found: list[Any] = []
        seconds.append(seconds_of(lambda: found.append(work(*args, **kwargs)), cuda)[0 if cuda else 1])
        return found[0]

    return call


def in_own_process(work: Callable[..., Any], *args: Any) -> Any:
    """Runs a function in a process of its own, which has the imports of this one: memory of earlier steps does not count."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(work, *args).result()


def is_shown(step: int, num_steps: int) -> bool:
    """Tells whether the table has a row for a step; only these are validated."""
    return step in (0, 1, num_steps - 1) or step % 5 == 0


def train(name: str, plans_name: str, kind: str, device: str, validates: bool) -> dict[str, Any]:
    """Trains a step, and returns what it cost."""
    import torch

    cuda = device == "cuda"
    forget_peak()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer = synthetic.make_trainer(name, plans_name, kind, device)
    trainer.initialize()
    seconds: dict[str, list[float]] = {}
    for part in ("on_train_start", "train_step", "on_train_end", "perform_actual_validation"):
        setattr(trainer, part, timed(getattr(trainer, part), seconds.setdefault(part, []), cuda))
    begin = time.perf_counter()
    trainer.run_training()
    trained = torch.cuda.max_memory_allocated() / 2**20 if cuda else peak_mib()
    forget_peak()
    if validates:
        trainer.perform_actual_validation()
    trainer._lock.release()
    fold = Path(trainer.output_folder)
    found = {
        "step": trainer.step_plan.step,
        "classes": len(trainer.step_plan.seen_classes),
        "iteration": statistics.mean(seconds["train_step"][WARM_UP:]),
        "start": sum(seconds["on_train_start"]),
        "end": sum(seconds["on_train_end"]),
        "peak_mib": trained,
        "checkpoint_mib": (fold / "checkpoint_final.pth").stat().st_size / 2**20,
        "clock": time.perf_counter() - begin,
    }
    if validates:
        found |= {"validation": sum(seconds["perform_actual_validation"]), "validation_mib": peak_mib()}
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Trains all steps."""
    import nnunetv2.run.run_training  # noqa: F401
    import torch

    import nnunet_cil.training.methods.pgcd  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ.update(synthetic.environment(root))
        os.environ.update(nnUNet_n_proc_DA="0", nnUNet_def_n_proc="1", nnUNet_compile="f")
        made = root, args.plans, args.classes, args.patch, args.batch, args.features
        in_own_process(synthetic.make_dataset, *made)
        names = in_own_process(plan_schedule, root, args.trainer, steps_of(args.classes, args.steps))
        rows: list[dict[str, Any]] = []
        for step, plans_name in enumerate(names):
            shown = is_shown(step, args.steps)
            rows.append(in_own_process(train, args.trainer, plans_name, args.plans, args.device, shown))
            print(json.dumps(rows[-1]), flush=True)
    settings = {key: getattr(args, key) for key in ("trainer", "plans", "device", "patch", "batch", "features")}
    return {**settings, "torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}


def tables(found: dict[str, Any]) -> str:
    """Returns the table, one row in five steps."""
    rows, first = found["rows"], found["rows"][1]
    lines = [
        [
            str(row["step"]),
            str(row["classes"]),
            f"{row['iteration']:.2f}",
            f"{row['iteration'] / first['iteration']:.2f}",
            *(f"{row[part]:.1f}" if part in row else "" for part in ("start", "end", "validation")),
            *(f"{row[part]:.0f}" if part in row else "" for part in ("peak_mib", "validation_mib")),
            f"{row['checkpoint_mib']:.2f}",
        ]
        for row in rows
        if is_shown(row["step"], len(rows))
    ]
    header = ["step", "classes", "iteration, s", "of step 1's", "start, s", "end, s", "validation, s"]
    header += ["memory, MiB", "in validation, MiB", "checkpoint, MiB"]
    clock = "the clock" if found["device"] == "cuda" else "CPU time"
    return (
        f"`{found['trainer']}`, patch {' x '.join(map(str, found['patch']))}, batch {found['batch']}, features "
        f"{', '.join(map(str, found['features']))}; seconds of {clock}, {ITERATIONS} iterations a step.\n\n"
        + cost_report.table(header, lines)
    )


def main() -> None:
    """Measures, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=117, help="after the last step (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="(default: %(default)s)")
    parser.add_argument("--trainer", default="nnUNetTrainerPGCD", help="(default: %(default)s)")
    parser.add_argument("--plans", default="3d", choices=synthetic.KINDS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 32, 32], help="(default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--features", type=int, nargs="+", default=[8, 16, 32], help="(default: %(default)s)")
    parser.add_argument("-o", dest="output", type=Path, required=True, help="JSON file")
    parser.add_argument(
        "--table", nargs="?", const="-", metavar="FILE", help="measure nothing: print or fill the table"
    )
    args = parser.parse_args()
    if not args.table:
        args.output.write_text(json.dumps(measure(args), indent=1) + "\n")
    cost_report.put(tables(json.loads(args.output.read_text())), args.table or "-", args.output.stem)


if __name__ == "__main__":
    main()
