"""Shows how far each old class is from counting as absent from a step's cases: what the teacher finds, and how much it doubts it.

    cd benchmarks
    python teacher_doubts.py 901 nnUNetPlansSmall_acdc_1-1-1_disjoint_cpu_step2 1 -c 2d -o results/teacher_doubts.json
    python teacher_doubts.py --table results/teacher_doubts.json

PLANS are a step's; the step before must be trained (benchmarks/study.py). Not for regions, nor right after a plain nnU-Net
model: no doubt is known of them. Sizes are in the class's mean volume in its own
step, doubts (1 - mean probability) in the highest of the steps so far, as nnunet_cil.training.absent_classes compares them.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np
from cost_report import table
from stored_measurements import measure_or_show, step_parser, step_trainer

os.environ["nnUNet_n_proc_DA"] = "0"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Returns a row a class: sizes and doubts of the cases, and of how many it is absent."""
    from nnunet_cil.training.absent_classes import LEAST_DOUBT, absent_classes, known_volumes, sizes_and_doubts
    from nnunet_cil.training.starts import build_teacher

    with step_trainer(args) as (trainer, previous):
        trainer.volumes = trainer._segment_volumes(build_teacher(trainer, previous.weights), previous)
        absent = absent_classes(trainer, previous.state)
        found = sizes_and_doubts(trainer)
        trainer._release_volumes()
    size = known_volumes(previous.state.lineage)
    rows = []
    for c, name in enumerate(trainer.step_plan.teacher_classes, start=1):
        own = max(1 - previous.state.confidences[name], LEAST_DOUBT)
        cases = [case for case in found if c not in trainer.labelled_channels_in(case)]
        rows.append(
            {
                "class": name,
                "sizes": [round(found[case][0][c] / size[name], 3) for case in cases],
                "doubts": [round(found[case][1][c] / own, 3) for case in cases],
                "absent": sum(c in absent.get(case, ()) for case in cases),
            }
        )
    return {"plans": args.plans, "fold": args.fold, "rows": rows}


def show(stored: list[dict[str, Any]]) -> str:
    """Returns the table."""
    lines = [
        [
            found["plans"].split("_", 1)[1],
            str(found["fold"]),
            row["class"],
            f"{row['absent']} of {len(row['sizes'])}",
            f"{np.min(row['sizes']):.2f}",
            f"{np.median(row['doubts']):.2f}",
            f"{np.max(row['doubts']):.2f}",
        ]
        for found in stored
        for row in found["rows"]
    ]
    return table(["step", "fold", "class", "absent", "smallest size", "median doubt", "largest doubt"], lines)


def main() -> None:
    """Measures, or prints the table."""
    measure_or_show(step_parser(__doc__).parse_args(), measure, show)


if __name__ == "__main__":
    main()
