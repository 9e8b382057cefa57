"""What a training step costs: our trainers at step 1 against plain nnUNetTrainer, in one run, as ratios.

    python benchmarks/step_cost.py 900 -device cpu -o benchmarks/results/step_cost_cpu.json

Takes a preprocessed data set and nnU-Net's own planned network (patch and batch cut down by --patch and --batch for a
CPU). Each measurement is a fresh process that repeats nnU-Net's train_step on one real batch; the trainers take turns, plain
nnU-Net in every round. Time is the median over steps, the ratio the median over rounds; memory is the peak of the whole process
(CPU) or of CUDA's allocator. What runs once at either end of a step (passes over the training cases) is not part of a
training step and is cut down to one patch.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CONFIGURATION = "3d_fullres"
SCHEDULE = "openkbp_2-2-1"
BASE = "nnUNetPlansStepCost"
PLAIN = "nnUNetTrainer"
METHODS = ("PGCD", "FineTune", "Joint", "PseudoLabel", "LwF", "ILT", "MiB", "PLOP", "EWC", "EWF", "Replay")


def write_plans(dataset: str, patch: list[int] | None, batch: int | None) -> None:
    """The planned network with another patch and batch, and the plans of its steps."""
    from nnunet_cil.workflows.folders import dataset_name, nnunet_folder
    from nnunet_cil.workflows.plan import plan

    folder = nnunet_folder("nnUNet_preprocessed") / dataset_name(dataset)
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    config = plans["configurations"][CONFIGURATION]
    plans.update(plans_name=BASE, configurations={CONFIGURATION: config})
    if patch:
        kwargs = config["architecture"]["arch_kwargs"]
        stages = 1 + min(p.bit_length() - 3 for p in patch)  # at least 4 voxels at the bottom
        stages = min(stages, kwargs["n_stages"])
        kwargs["n_stages"] = stages
        for key in ("features_per_stage", "kernel_sizes", "strides", "n_conv_per_stage"):
            kwargs[key] = kwargs[key][:stages]
        kwargs["n_conv_per_stage_decoder"] = kwargs["n_conv_per_stage_decoder"][: stages - 1]
        config["patch_size"] = patch
    if batch:
        config["batch_size"] = batch
    (folder / f"{BASE}.json").write_text(json.dumps(plans))
    plan(dataset, SCHEDULE, base_plans=BASE)


def make_trainer(name: str, plans_name: str, dataset: str, device: str) -> Any:
    """A trainer, as nnUNetv2_train makes it."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    return get_trainer_from_args(dataset, CONFIGURATION, 0, name, plans_name, device=torch.device(device))


def untrained_step_0(dataset: str, device: str) -> None:
    """A step-0 checkpoint of the right shape; its weights do not matter to the cost."""
    from nnunet_cil.networks.prototype_bank import PrototypeBank

    trainer = make_trainer("nnUNetTrainerPGCD", f"{BASE}_{SCHEDULE}_step0", dataset, device)
    trainer.initialize()
    trainer.prototypes = random_bank(trainer, 3)
    assert isinstance(trainer.prototypes, PrototypeBank)
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")


def random_bank(trainer: Any, num_classes: int) -> Any:
    """Prototypes of the right shape."""
    import torch

    from nnunet_cil.networks.prototype_bank import PrototypeBank

    num_features = trainer.bare_network.decoder.seg_layers[-1].in_channels
    return PrototypeBank(torch.randn(num_classes, num_features), torch.ones(num_classes)).to(trainer.device)


def measure(trainer_name: str, dataset: str, device: str, num_steps: int) -> dict[str, Any]:
    """Seconds of each training step, and the peak memory in MiB. Runs in a process of its own."""
    import resource

    import torch

    is_plain = trainer_name == "nnUNetTrainer"
    trainer = make_trainer(trainer_name, BASE if is_plain else f"{BASE}_{SCHEDULE}_step1", dataset, device)
    if not is_plain:
        all_tiles = trainer.training_tiles
        trainer.training_tiles = lambda: itertools.islice(all_tiles(), 1)
    trainer.on_train_start()
    trainer.network.train()
    batch = next(trainer.dataloader_train)
    seconds = []
    for step in range(num_steps + 2):
        if device == "cuda":
            torch.cuda.synchronize()
            if step == 2:
                torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        trainer.train_step(dict(batch))
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else resource.getrusage(0).ru_maxrss / 2**10
    return {"seconds": seconds[2:], "peak_mib": peak, "torch": torch.__version__}


def in_a_process(arguments: list[str], environment: dict[str, str]) -> str:
    """Runs this file again; returns its last line."""
    command = [sys.executable, __file__, *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()[-1]


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """All trainers in turns."""
    write_plans(args.dataset, args.patch, args.batch)
    from nnunet_cil.shipped import trainers_folder

    names = [f"nnUNetTrainer{t}" for t in args.trainers]
    with tempfile.TemporaryDirectory() as results:
        environment = {
            **os.environ,
            "nnUNet_results": results,
            "nnUNet_extTrainer": str(trainers_folder()),
            "nnUNet_n_proc_DA": "0",
        }
        common = [args.dataset, "-device", args.device, "--steps", str(args.steps)]
        in_a_process([*common, "--measure", "step0"], environment)
        rounds = []
        for repeat in range(args.repeats):
            found = {}
            for name in (PLAIN, *names):
                found[name] = json.loads(in_a_process([*common, "--measure", name], environment))
                print(f"{repeat + 1}/{args.repeats} {name}: measured", file=sys.stderr, flush=True)
            rounds.append(found)
    return {
        "device": args.device,
        "machine": platform.machine(),
        "torch": rounds[0][PLAIN]["torch"],
        "patch": args.patch,
        "batch": args.batch,
        "steps": args.steps,
        "trainers": {name: ratios(rounds, name) for name in names},
    }


def ratios(rounds: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Time and memory of a trainer in units of plain nnU-Net's, round by round."""
    times = [statistics.median(r[name]["seconds"]) / statistics.median(r[PLAIN]["seconds"]) for r in rounds]
    memory = [r[name]["peak_mib"] / r[PLAIN]["peak_mib"] for r in rounds]
    return {
        "time_ratios": [round(t, 3) for t in times],
        "time_ratio": round(statistics.median(times), 3),
        "memory_ratio": round(statistics.median(memory), 3),
    }


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["| trainer | time (smallest to largest) | memory |", "|---|---|---|"]
    for name, found in result["trainers"].items():
        low, high = min(found["time_ratios"]), max(found["time_ratios"])
        lines.append(
            f"| `{name}` | {found['time_ratio']:.2f} ({low:.2f} to {high:.2f}) | {found['memory_ratio']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="ID of the preprocessed data set")
    parser.add_argument("-device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--patch", type=int, nargs=3, help="patch size (default: as planned)")
    parser.add_argument("--batch", type=int, help="batch size (default: as planned)")
    parser.add_argument("--trainers", nargs="+", default=METHODS, help="without 'nnUNetTrainer' (default: all)")
    parser.add_argument("--steps", type=int, default=6, help="timed steps a process (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of processes (default: %(default)s)")
    parser.add_argument("-o", dest="output", type=Path, help="also write the result as JSON")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure == "step0":
        untrained_step_0(args.dataset, args.device)
    elif args.measure:
        print(json.dumps(measure(args.measure, args.dataset, args.device, args.steps)))
    else:
        result = compare(args)
        print(table(result))
        if args.output:
            args.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
