"""Writes the plans files of a schedule's steps."""

from __future__ import annotations

import argparse

from nnunet_cil.cli.arguments import Commands, add_base_plans, add_schedule
from nnunet_cil.training_command import train_command


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "plan",
        help="write one nnU-Net plans file for each step of a schedule",
        description="Writes one plans file for each step, beside the base plans in nnUNet_preprocessed, and prints the training "
        "commands. All steps share the preprocessed data. Where steps learn from other data sets, plan first copies DATASET's "
        "plans to these, and prints the commands that preprocess them; run those commands, then plan again.",
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="ID or name of a preprocessed data set; step 0 and every step that names no other learn from it",
    )
    add_schedule(parser)
    add_base_plans(parser)
    parser.add_argument(
        "--step0-trainer",
        metavar="TRAINER",
        help="let all trainers continue from this trainer's step 0, which is then trained once. Decide before you train step "
        "1 (default: as planned before, else each trainer trains its own step 0)",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="go on although the check of a further data set's compatibility with DATASET found something blocking, or a data "
        "set has too few cases for any fold but all",
    )
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.plan.plan import plan

    steps = plan(
        args.dataset,
        args.schedule,
        base_plans=args.base_plans,
        first_trainer=args.step0_trainer,
        force=args.force,
    )
    for step in steps:
        what = "written" if step.written else "unchanged"
        print(f"step {step.plan.step}: {', '.join(step.plan.new_classes)}  ({what}: {step.file})")
    previous = [step.plan.previous for step in steps[1:2]]
    trainer = next((p.trainer for p in previous if p is not None), None) or "nnUNetTrainerPGCD"
    available = steps[0].configurations
    configuration = "3d_fullres" if "3d_fullres" in available else available[0]
    fold = str(steps[0].folds[0])
    print(f"\nTrain the steps in this order, for example {configuration}, fold {fold}:")
    for step in steps:
        dataset = args.dataset if step.dataset == steps[0].dataset else step.dataset
        print(f"  {train_command(dataset, configuration, fold, trainer, step.plans_name)}")
    for cascade, before in steps[0].cascades.items():
        print(
            f"\n{cascade} sees what {before} of the same step predicts: train {before} in all folds before it. run does it in "
            "this order."
        )
    return 0
