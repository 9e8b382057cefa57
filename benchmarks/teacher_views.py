"""Compares what a teacher sees in an augmented patch and in the whole volume: Dice of both, on the same patches.

    python benchmarks/teacher_views.py 900 nnUNetPlansSmall_openkbp_2-2-1_cpu_step1 0 -o benchmarks/results/teacher_views
    python benchmarks/teacher_views.py --table benchmarks/results/teacher_views

PLANS are a step's; the step before must be trained (benchmarks/study.py). The patches are those of the training, sampling and
augmentation included; the old classes' labels are looked at here, and nowhere in a training. True, false and missed voxels are
summed over the patches.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np

os.environ["nnUNet_n_proc_DA"] = "0"


def look(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Returns view -> old class -> Dice."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    trainer = get_trainer_from_args(
        args.dataset, args.c, args.fold, args.tr, args.plans, device=torch.device(args.device)
    )
    seen = property(lambda self: self.step_plan.evaluation_label_map)
    trainer.__class__ = type(args.tr, (type(trainer),), {"target_label_map": seen, "teacher_volumes": 1})
    with tempfile.TemporaryDirectory() as folder:
        trainer.output_folder = trainer.output_folder_base = folder
        trainer.log_file = str(Path(folder) / "log.txt")
        trainer.on_train_start()
        old = trainer.step_plan.old_classes
        sums = {view: np.zeros((len(old), 2)) for view in ("augmented patch", "whole volume")}
        for _ in range(args.n):
            batch = next(trainer.dataloader_train)
            labels, whole = batch["target"][0][:, 0], batch["target"][0][:, 1]
            patch = trainer.teacher(batch["data"].to(trainer.device)).logits.argmax(1).cpu()
            for view, found in zip(sums.values(), (patch, whole), strict=True):
                for index in range(len(old)):
                    own, true = found == index + 1, labels == index + 1
                    view[index] += [2 * (own & true).sum().item(), own.sum().item() + true.sum().item()]
    return {view: dict(zip(old, (s[:, 0] / s[:, 1]).tolist(), strict=True)) for view, s in sums.items()}


def table(folder: Path) -> str:
    """Returns Markdown: the mean over the folds (each fold)."""
    files = [json.loads(f.read_text()) for f in sorted(folder.glob("*.json"))]
    names = list(files[0]["augmented patch"])
    lines = [f"| the teacher sees | {' | '.join(names)} |", "|" + "---|" * (len(names) + 1)]
    for view in files[0]:
        cells = []
        for name in names:
            values = [f[view][name] for f in files]
            cells.append(f"{np.mean(values):.3f} ({', '.join(f'{v:.3f}' for v in values)})")
        lines.append(f"| {view} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", help="ID of the preprocessed data set, e.g. 900")
    parser.add_argument("plans", nargs="?", help="the step's plans")
    parser.add_argument("fold", nargs="?", type=int)
    parser.add_argument("-tr", default="nnUNetTrainerPGCD", help="(default: %(default)s)")
    parser.add_argument("-c", default="3d_fullres", help="configuration (default: %(default)s)")
    parser.add_argument("-n", type=int, default=150, help="batches (default: %(default)s)")
    parser.add_argument("-device", default="cpu")
    parser.add_argument("-o", type=Path, help="folder of the results")
    parser.add_argument("--table", type=Path, help="only print the table of that folder")
    args = parser.parse_args()
    if not args.table:
        args.o.mkdir(parents=True, exist_ok=True)
        (args.o / f"{args.plans}_fold{args.fold}.json").write_text(json.dumps(look(args), indent=1) + "\n")
    print(table(args.table or args.o))


if __name__ == "__main__":
    main()
