"""Measures what overlap and Gaussian weights of the sliding window buy in the teacher's volumes: Dice, and seconds a case.

    python benchmarks/volume_options.py 900 nnUNetPlansSmall_openkbp_2-2-1_cpu_step1 0 -o benchmarks/results/volume_options.json
    python benchmarks/volume_options.py --table benchmarks/results/volume_options.json

PLANS are a step's; the step before must be trained (benchmarks/study.py). The cases are training cases of the step. Their labels
of old classes are looked at here, and nowhere in a training. All options segment a case in turns, so that they run under the same
load. Mirroring is left out: the study's networks are trained without.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import numpy as np
from cost_report import table
from stored_measurements import measure_or_show, step_parser, step_trainer

os.environ["nnUNet_n_proc_DA"] = "0"

OPTIONS = [(overlap, gaussian) for overlap in (0.5, 0.25, 0.0) for gaussian in (True, False)]
"""Share of a patch that two neighbours have in common, and Gaussian weights or equal ones."""


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Returns a row an option: seconds, and Dice with the labels and with the first option, a mean over cases and classes."""
    import torch

    from nnunet_cil.training.data import evenly_spaced
    from nnunet_cil.training.starts import build_teacher
    from nnunet_cil.training.volumes.teacher_volumes import volume_predictor

    with step_trainer(args) as (trainer, previous):
        teacher = build_teacher(trainer, previous.weights)
        names = evenly_spaced(sorted(trainer.do_split()[0]), args.n)
    host = trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json, trainer.device
    predictor = volume_predictor(teacher.network, trainer.step_plan.old_classes, *host, of_regions=False)
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, names)
    truth_of = trainer.step_plan.evaluation_label_map
    old = range(1, trainer.step_plan.num_old_channels)
    rows: list[dict[str, Any]] = [
        {"overlap": o, "gaussian": g, "seconds": [], "dice": [], "same": []} for o, g in OPTIONS
    ]
    for case in names:
        data, labels, *_ = dataset.load_case(case)
        image = torch.from_numpy(np.array(data[:], dtype=np.float32))
        truth = np.vectorize(lambda v: truth_of.get(int(v), 0))(np.asarray(labels[0]))
        first = None
        for row in rows:
            predictor.tile_step_size, predictor.use_gaussian = 1 - row["overlap"], row["gaussian"]
            begin = time.perf_counter()
            found = predictor.predict_sliding_window_return_logits(image).argmax(0).cpu().numpy()
            row["seconds"].append(time.perf_counter() - begin)
            first = found if first is None else first
            row["dice"].append(dice(found, truth, old))
            row["same"].append(dice(found, first, old))
        print(case, *(f"{row['seconds'][-1]:.1f}" for row in rows), flush=True)
    return {"plans": args.plans, "fold": args.fold, "cases": len(names), "rows": rows}


def dice(a: np.ndarray, b: np.ndarray, classes: range) -> float:
    """Returns the mean Dice over the classes that one of two label maps has."""
    sizes = [(np.sum((a == c) & (b == c)), np.sum(a == c) + np.sum(b == c)) for c in classes]
    return float(np.mean([2 * both / all_ for both, all_ in sizes if all_]))


def show(stored: list[dict[str, Any]]) -> str:
    """Returns the table."""
    lines = []
    for found in stored:
        base = np.sum(found["rows"][0]["seconds"])
        for row in found["rows"]:
            differences = np.subtract(row["dice"], found["rows"][0]["dice"])
            lines.append(
                [
                    found["plans"].rpartition("_")[2],
                    f"{row['overlap']:.0%}",
                    "Gaussian" if row["gaussian"] else "equal",
                    f"{np.sum(row['seconds']) / base:.2f}",
                    f"{np.mean(row['dice']):.4f}",
                    f"{np.mean(differences):+.4f}",
                    f"{np.mean(row['same']):.4f}",
                ]
            )
    header = ["before", "overlap", "weights", "time", "Dice with the labels", "difference", "Dice with the first row"]
    return table(header, lines)


def main() -> None:
    """Measures, or prints the table."""
    measure_or_show(step_parser(__doc__, num_cases=64).parse_args(), measure, show)


if __name__ == "__main__":
    main()
