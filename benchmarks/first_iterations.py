"""Measures how fast a step learns its new classes: the first iterations of a step, from the same seed, under several settings.

    python benchmarks/first_iterations.py 900 nnUNetPlansSmall_openkbp_2-2-1_cpu_step2 1 \
        --set dapd_weight=1 --set dapd_weight=0.1 --set dapd_weight=0 --set pgcd_weight=3 -o benchmarks/results/first_iterations

Nothing is kept of the trainings. All settings see the same patches in the same order: 240 iterations tell them apart where whole
trainings, each with its own random numbers, need many repetitions. The previous step must be trained (benchmarks/study.py).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

os.environ["nnUNet_n_proc_DA"] = "0"  # a worker process would draw its own random numbers
QUARTERS = 4
NUM_VALIDATION_BATCHES = 24


def seed(number: int) -> None:
    """Seeds all generators that nnU-Net's data loading and training use."""
    import torch

    random.seed(number)
    np.random.seed(number)  # noqa: NPY002, the generator that nnU-Net draws from
    torch.manual_seed(number)


def run(args: argparse.Namespace, settings: dict[str, float]) -> dict[str, Any]:
    """Begins a training under ``settings``, and returns what it has learnt."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    from nnunet_cil.training.hyperparameters import declared

    seed(0)
    device = torch.device(args.device)
    trainer = get_trainer_from_args(args.dataset, args.c, args.fold, args.tr, args.plans, device=device)
    for name, value in settings.items():
        known = declared(type(trainer))
        if name not in known:
            raise SystemExit(f"{args.tr} has no hyper-parameter {name}: {', '.join(known)}.")
        setattr(trainer, name, value)
    with tempfile.TemporaryDirectory() as folder:
        trainer.output_folder = trainer.output_folder_base = folder
        trainer.log_file = str(Path(folder) / "log.txt")
        trainer.on_train_start()
        trainer.on_epoch_start()
        trainer.on_train_epoch_start()
        seed(0)
        quarters = []
        for _ in range(QUARTERS):
            for _ in range(args.n // QUARTERS):
                trainer.train_step(next(trainer.dataloader_train))
            quarters.append(trainer.loss.mean_terms())
        trainer.network.eval()
        seed(1)
        with torch.no_grad():
            found = [trainer.validation_step(next(trainer.dataloader_val)) for _ in range(NUM_VALIDATION_BATCHES)]
    true, false, missed = (np.sum([f[f"{name}_hard"] for f in found], axis=0) for name in ("tp", "fp", "fn"))
    dice = 2 * true / (2 * true + false + missed)
    names = trainer.step_plan.seen_classes
    return {"settings": settings, "terms": quarters, "dice": dict(zip(names, dice.tolist(), strict=True))}


def table(folder: Path) -> str:
    """Returns Markdown: the segmentation term in each quarter; Dice of new classes, and of old ones with the teacher."""
    lines: list[str] = []
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text())
        size = content["iterations"] // QUARTERS
        heads = [f"to {size * (q + 1)}" for q in range(QUARTERS)]
        lines += [f"{file.stem}", "", f"| settings | {' | '.join(heads)} | new | old, with the teacher |"]
        lines.append("|" + "---|" * (QUARTERS + 3))
        for row in content["rows"]:
            settings = ", ".join(f"`{k}` {v:g}" for k, v in row["settings"].items()) or "defaults"
            terms = [f"{q['segmentation']:.2f}" for q in row["terms"]]
            new = np.mean([v for k, v in row["dice"].items() if k in content["new"]])
            old = np.mean([v for k, v in row["dice"].items() if k not in content["new"]])
            lines.append(f"| {settings} | {' | '.join(terms)} | {new:.2f} | {old:.2f} |")
        lines.append("")
    return "\n".join(lines)


def key_values(words: list[str]) -> dict[str, float]:
    """Returns {"a": 1.0, "b": 2.0} for ["a=1", "b=2"]."""
    return {name: float(value) for name, value in (word.split("=") for word in words)}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="ID of the preprocessed data set, e.g. 900")
    parser.add_argument("plans", help="the step's plans")
    parser.add_argument("fold", type=int)
    parser.add_argument("-tr", default="nnUNetTrainerPGCD", help="(default: %(default)s)")
    parser.add_argument("-c", default="3d_fullres", help="configuration (default: %(default)s)")
    parser.add_argument("-n", type=int, default=240, help="iterations (default: %(default)s)")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("--set", nargs="*", action="append", default=[], metavar="NAME=VALUE", help="one training each")
    parser.add_argument("-o", type=Path, required=True, help="folder of the results")
    parser.add_argument("--table", action="store_true", help="only print the tables of that folder")
    args = parser.parse_args()
    if not args.table:
        args.o.mkdir(parents=True, exist_ok=True)
        file = args.o / f"{args.tr}_{args.plans}_fold{args.fold}.json"
        content: dict[str, Any] = {"iterations": args.n, "rows": []}
        if file.is_file() and json.loads(file.read_text())["iterations"] == args.n:
            content = json.loads(file.read_text())
        for settings in map(key_values, args.set or [[]]):
            if settings in [row["settings"] for row in content["rows"]]:
                continue
            content["rows"].append(run(args, settings))
            content["new"] = new_classes(args)
            file.write_text(json.dumps(content, indent=1) + "\n")
    print(table(args.o))


def new_classes(args: argparse.Namespace) -> list[str]:
    """Returns the new classes of the step."""
    from nnunet_cil.host.folders import dataset_name, nnunet_folder

    plans = nnunet_folder("nnUNet_preprocessed") / dataset_name(args.dataset) / f"{args.plans}.json"
    block = json.loads(plans.read_text())["cil"]
    return list(block["steps"][block["step"]])


if __name__ == "__main__":
    main()
