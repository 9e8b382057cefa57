"""Plans a step that continues from any trained nnU-Net model."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_cil.cli.arguments import Commands, add_npz, add_trained_folds, add_trusted_packages, key_values
from nnunet_cil.cli.launchers import add_launcher_arguments, check_launcher, run_jobs, submit_jobs
from nnunet_cil.errors import CILError
from nnunet_cil.limits import DEVICES
from nnunet_cil.training_command import train_command

if TYPE_CHECKING:
    from nnunet_cil.workflows.models.extension import ExtendOptions, Extension


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "extend",
        help="teach a trained nnU-Net model classes of another data set",
        description="Takes any nnU-Net v2 model and a raw data set that labels other classes, or the same ones again. Checks "
        "their compatibility, copies the model's plans to the data set, preprocesses it, writes the plans of a step that "
        "continues from the model, and prints the training command; --train does the rest, too. The new model segments the old "
        "classes and the new ones.",
    )
    _add_step_arguments(parser)
    _add_plans_arguments(parser)
    add_trusted_packages(parser)
    parser.add_argument(
        "--advise",
        action="store_true",
        help="tell what extending, a second model and training again need and give, in a table; write nothing",
    )
    _add_training_arguments(parser)
    parser.set_defaults(resumes=True)
    return parser


def _add_step_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what learns what: the model, the data set, the trainer and the classes."""
    parser.add_argument(
        "model",
        metavar="MODEL_FOLDER",
        type=Path,
        help="folder of the trained model, with plans.json, dataset.json and fold_X",
    )
    parser.add_argument("dataset", metavar="DATASET", help="ID or name of a data set in nnUNet_raw")
    parser.add_argument(
        "-tr",
        dest="trainer",
        default="nnUNetTrainerPGCD",
        metavar="TRAINER",
        help="trainer of the new step (default: %(default)s)",
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="classes to learn (default: all that the model does not segment)",
    )
    parser.add_argument(
        "--refine",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="old classes that the data set labels, too, with the same meaning: these labels take precedence over the model. "
        "Where it labels old classes only, those named are refined alone, without a new class",
    )


def _add_plans_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the step's plans say beside its classes."""
    parser.add_argument(
        "-c",
        dest="configuration",
        metavar="CONFIG",
        help="configuration to continue (default: the one that the model was trained with)",
    )
    add_trained_folds(parser, "folds to continue")
    parser.add_argument(
        "--name",
        default="",
        metavar="NAME",
        help="name of the step, part of its plans' name (default: the new classes)",
    )
    parser.add_argument(
        "-p",
        dest="plans_name",
        default="",
        metavar="PLANS",
        help="name of the plans on the data set (default: that of the model's plans + From and the ID of its data set)",
    )
    parser.add_argument(
        "--training",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="training settings, as in a schedule: num_epochs=250 initial_lr=0.003",
    )
    parser.add_argument(
        "--hyperparameters",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="options of the trainer, as in a schedule: old_dice_weight=0.5",
    )
    parser.add_argument(
        "--force", action="store_true", help="go on although the check of compatibility found something blocking"
    )


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that need ``--train``."""
    training = parser.add_argument_group("training (these options need --train)")
    training.add_argument(
        "--train",
        action="store_true",
        help="train every fold as well, compare the old model with the new one on the validation images, write the report, and "
        "export; a second call goes on",
    )
    training.add_argument(
        "--export",
        dest="export_to",
        type=Path,
        metavar="OUT",
        help="folder that takes a plain nnU-Net model in the end, or an archive (OUT.zip)",
    )
    training.add_argument("-device", choices=DEVICES, help="device for nnU-Net's commands (default: cuda)")
    add_npz(training)
    add_launcher_arguments(training, jobs="each fold")


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.models.advise import advise
    from nnunet_cil.workflows.models.extend import extend
    from nnunet_cil.workflows.models.extension import ExtendOptions

    options = ExtendOptions(
        trainer=args.trainer,
        classes=tuple(args.classes),
        refine=tuple(args.refine),
        configuration=args.configuration,
        folds=tuple(args.folds),
        name=args.name,
        plans_name=args.plans_name,
        training=key_values("--training", args.training),
        hyperparameters=key_values("--hyperparameters", args.hyperparameters),
        force=args.force,
        trusted=tuple(args.trusted),
    )
    if args.train:
        if args.advise:
            raise CILError("--advise trains nothing. Leave out --train or --advise.")
        return _train(args, options)
    _refuse_without_train(args)
    if args.advise:
        print(advise(args.model, args.dataset, options))
        return 0
    _print_plan(extend(args.model, args.dataset, options))
    return 0


_ONLY_WITH_TRAIN = {
    "--export": "export_to",
    "-device": "device",
    "--npz": "npz",
    "--dry-run": "dry_run",
    "--launcher": "launcher",
    "--slurm": "slurm",
    "--max-jobs": "max_jobs",
}


def _refuse_without_train(args: argparse.Namespace) -> None:
    given = [option for option, name in _ONLY_WITH_TRAIN.items() if getattr(args, name)]
    if args.num_gpus != 1:
        given.append("-num_gpus")
    if given:
        raise CILError(f"{given[0]} is for extend --train. Add --train, or leave it out.")


def _train(args: argparse.Namespace, options: ExtendOptions) -> int:
    """Trains the extension, here or as jobs; or prints what is left to do."""
    from nnunet_cil.workflows.models.train_extension import (
        TrainedExtension,
        extension_jobs,
        finish_extension,
        remaining_commands,
        train_extension,
    )
    from nnunet_cil.workflows.run.options import TrainingOptions

    check_launcher(args)
    asked = TrainedExtension(
        model_folder=args.model,
        dataset=args.dataset,
        options=options,
        training=TrainingOptions(device=args.device or "cuda", num_gpus=args.num_gpus, npz=args.npz),
        export_to=args.export_to,
    )
    if args.dry_run:
        print("\n".join(remaining_commands(asked)))
        return 0
    if args.launcher == "slurm":
        submit_jobs(args, lambda: extension_jobs(asked, finishes=True), asked.logs)
        print(f"Logs: {asked.logs}")
        return 0
    if args.launcher == "local":
        with asked.lock.held():
            run_jobs(args, extension_jobs(asked, finishes=False), asked.logs)
            made = finish_extension(asked)
    else:
        made = train_extension(asked)
    if made.comparison is not None:
        print(f"\n{made.comparison.text}\n\nComparison: {made.comparison.page}")
    print(f"Report: {made.report}\nModel: {made.folder}")
    if made.exported is not None:
        print(f"Exported: {made.exported}")
    return 0


def _print_plan(found: Extension) -> None:
    """Prints what is planned, and the next commands."""
    print(
        f"\nOld classes: {', '.join(found.plan.old_classes)}; new classes: {', '.join(found.plan.new_classes) or 'none'}"
    )
    if found.plan.refined:
        print(f"Refined: {', '.join(found.plan.refined)}")
    print(f"Plans: {found.file}\n\nTrain, then predict:")
    which = ["-tr", found.trainer, "-p", found.plans_name]
    trained: list[str] = []
    predicted: list[str] = []
    shown: list[str] = []
    for stage in found.stages:
        name, output = stage.model.configuration, "OUT" if stage is found.stages[-1] else "BEFORE"
        trained += [train_command(found.dataset, name, fold, found.trainer, found.plans_name) for fold in stage.folds]
        place = ["-d", found.dataset, "-c", name, "-f", *found.folds]
        predicted.append(shlex.join(["nnUNetv2_predict", *place, *which, "-i", "IMAGES", *shown, "-o", output]))
        shown = ["-prev_stage_predictions", output]
    for command in (*trained, *predicted):
        print(f"  {command}")
