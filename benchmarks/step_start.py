"""Measures what a step costs before its first iteration: the teacher's volumes and PGCD's prototypes, in epochs of the step.

    python benchmarks/step_start.py 900 nnUNetPlansSmall_openkbp_2-2-1_cpu_step1 0 -o benchmarks/results/step_start.json
    python benchmarks/step_start.py --table benchmarks/results/step_start.json

PLANS are a step's; the step before must be trained (benchmarks/study.py). The cases are training cases of the step. A round is an
epoch, and some cases by each way of asking the teacher, so that all run under the same load. Nothing is kept of the training.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from cost_report import table
from step_cost import seconds_of
from stored_measurements import measure_or_show, step_parser

os.environ["nnUNet_n_proc_DA"] = "0"

WAYS = ("volumes, a patch at a time", "volumes", "prototypes, a patch at a time", "prototypes")
"""Name what the teacher is asked for, and how; nnU-Net's predictor takes a patch at a time."""


def started(args: argparse.Namespace, folder: str) -> Any:
    """Returns a training at its first epoch; its passes see ``args.n`` cases."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    device = torch.device(args.device)
    trainer = get_trainer_from_args(args.dataset, args.c, args.fold, args.tr, args.plans, device=device)
    trainer.output_folder = trainer.output_folder_base = folder
    trainer.log_file = str(Path(folder) / "log.txt")
    trainer.max_pass_cases = args.n
    trainer.on_train_start()
    trainer.network.train()
    return trainer


def ways(trainer: Any, cases: list[str]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yields the ways of asking the teacher about some cases."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    from nnunet_cil.training.class_choices import confident_classes
    from nnunet_cil.training.locations import OldClassLocations
    from nnunet_cil.training.volumes.teacher_volumes import _segmented, volume_predictor

    network, step = trainer.teacher.network, trainer.step_plan
    host = trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json, trainer.device
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, cases)
    images = [np.array(dataset.load_case(case)[0][:], dtype=np.float32) for case in cases]
    strays = range(1, step.num_old_channels)
    batched = volume_predictor(network, step.old_classes, *host, of_regions=False)
    single = volume_predictor(network, step.old_classes, *host, of_regions=False)
    single.__class__ = nnUNetPredictor

    def volumes(predictor: Any) -> None:
        for image in images:
            _segmented(image, predictor, (), strays)

    def prototypes(batch_size: int) -> None:
        some = replace(trainer.training_pass(), cases=cases, batch_size=batch_size)
        confident = confident_classes(step.num_old_channels, trainer.prototype_confidence)
        locations = OldClassLocations(step.num_old_channels)
        some.prototypes(trainer.teacher, confident, step.num_old_channels, locations.add)

    yield WAYS[0], lambda: volumes(single)
    yield WAYS[1], lambda: volumes(batched)
    yield WAYS[2], lambda: prototypes(1)
    yield WAYS[3], lambda: prototypes(trainer.batch_size)


def epoch(trainer: Any) -> None:
    """Runs nnU-Net's epoch, without the checkpoint and the plot at its end."""
    import torch

    for _ in range(trainer.num_iterations_per_epoch):
        trainer.train_step(next(trainer.dataloader_train))
    with torch.no_grad():
        for _ in range(trainer.num_val_iterations_per_epoch):
            trainer.validation_step(next(trainer.dataloader_val))


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the seconds, of the clock and of all threads, of each way and of epochs, a list with one entry a round."""
    cuda = args.device == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        trainer = started(args, folder)
        cases = list(trainer.training_pass().cases)
        number = len(trainer.pass_cases())
        per_round = len(cases) // args.rounds
        seconds: dict[str, list[tuple[float, float]]] = {}
        for first in range(0, per_round * args.rounds, per_round):
            for name, work in ways(trainer, cases[first : first + per_round]):
                seconds.setdefault(name, []).append(seconds_of(work, cuda))
            seconds.setdefault("epoch", []).append(seconds_of(lambda: epoch(trainer), cuda))
            print({name: [round(s, 1) for s in found[-1]] for name, found in seconds.items()}, flush=True)
        trainer._release_volumes()
    return {
        "plans": args.plans,
        "configuration": args.c,
        "cases": number,
        "cases_a_round": per_round,
        "iterations": trainer.num_iterations_per_epoch,
        "seconds": seconds,
    }


def show(stored: list[dict[str, Any]]) -> str:
    """Returns the table: what a step's cases cost, in epochs, by both clocks."""
    lines = []
    for found in stored:
        share = found["cases"] / found["cases_a_round"]
        of_epoch = np.array(found["seconds"]["epoch"]).mean(0)
        for way in WAYS:
            epochs = np.array(found["seconds"][way]).mean(0) * share / of_epoch
            step = found["plans"].rpartition("_")[2]
            lines.append([step, found["configuration"], str(found["cases"]), way, *(f"{e:.1f}" for e in epochs)])
    return table(["step", "configuration", "cases", "what", "epochs", "epochs, CPU time"], lines)


def main() -> None:
    """Measures, or prints the table."""
    parser = step_parser(__doc__, num_cases=24)
    parser.add_argument("--rounds", type=int, default=6, help="(default: %(default)s)")
    measure_or_show(parser.parse_args(), measure, show)


if __name__ == "__main__":
    main()
