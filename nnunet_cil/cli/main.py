"""The command ``nnunet_cil``. The only module that prints; heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import errno
import json
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil import __version__
from nnunet_cil.errors import CILError

if TYPE_CHECKING:
    from nnunet_cil.workflows.evaluate.evaluate import Evaluation
    from nnunet_cil.workflows.experiment import Experiment
    from nnunet_cil.workflows.run.run import Choice


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    args = _parser().parse_args(arguments)
    try:
        status: int = args.run(args)
    except (CILError, NotImplementedError) as error:
        print(f"nnunet_cil: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(f"nnunet_cil: {error.strerror}{where}. {_REMEDIES[error.errno]}", file=sys.stderr)
        return 1
    return status


_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "Make room and run the command again: what is finished is kept."),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Change its permissions, or name another place."),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "Create what is missing, or name another place."),
}
"""What to do about errors of the file system."""


def entry() -> None:
    """The console script."""
    sys.exit(main())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nnunet_cil",
        description="Teach an nnU-Net v2 model new organs, step by step, from data that labels only the new ones.",
        epilog="Training and prediction are nnU-Net's own commands: nnUNetv2_train ... -tr nnUNetTrainerPGCD -p PLANS.",
    )
    parser.add_argument("--version", action="version", version=f"nnunet_cil {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_demo(commands)
    _add_plan(commands)
    _add_schedules(commands)
    _add_run(commands)
    _add_status(commands)
    _add_evaluate(commands)
    _add_extend(commands)
    _add_export(commands)
    _add_info(commands)
    _add_convert(commands)
    _add_inspect(commands)
    _add_doctor(commands)
    _add_trainers(commands)
    return parser


_Commands = argparse._SubParsersAction  # argparse has no public name for it


def _add_trainers(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "trainers",
        help="print the folder of the trainers, for nnUNet_extTrainer",
        description="Prints the folder for nnU-Net's environment variable: export nnUNet_extTrainer=\"$(nnunet_cil "
        'trainers)"',
    )
    parser.set_defaults(run=_run_trainers)


def _run_trainers(_args: argparse.Namespace) -> int:
    from nnunet_cil.shipped import trainers_folder

    print(trainers_folder())
    return 0


def _add_doctor(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check the installation, and say what to set",
        description="Looks at versions, nnU-Net's folders and whether nnU-Net finds the trainers. Exits with 1 when "
        "something is missing.",
    )
    parser.set_defaults(run=_run_doctor)


def _run_doctor(_args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.doctor import examine

    checks = examine()
    for check in checks:
        print(f"{'ok     ' if check.ok else 'MISSING'}  {check.name}: {check.found}")
        if not check.ok:
            print(f"         -> {check.remedy}")
    return 0 if all(check.ok for check in checks) else 1


def _add_plan(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "plan",
        help="write one nnU-Net plans file for each step of a schedule",
        description="Writes one plans file a step beside the base plans in nnUNet_preprocessed. Nothing is preprocessed "
        "again. Prints the training commands. Where a schedule's steps learn from other data sets, DATASET's plans are moved "
        "there first, and nnU-Net's commands that preprocess these data sets with them are printed: run these, then this again.",
    )
    parser.add_argument(
        "dataset",
        metavar="DATASET",
        help="ID or name of a preprocessed data set: that of step 0, and of every step that names none",
    )
    parser.add_argument("schedule", metavar="SCHEDULE", help="name of a shipped schedule, or a JSON file")
    parser.add_argument(
        "-p",
        dest="base_plans",
        default="nnUNetPlans",
        metavar="BASE_PLANS",
        help="plans that the steps copy (default: %(default)s)",
    )
    parser.add_argument(
        "--step0-trainer",
        metavar="TRAINER",
        help="every trainer continues from this trainer's step 0, which is then trained once; to be said before step 1 is "
        "trained (default: as planned before, else each trainer trains its own)",
    )
    parser.add_argument(
        "--force", action="store_true", help="go on where a further data set differs dangerously from DATASET"
    )
    parser.set_defaults(run=_run_plan)


def _run_plan(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.plan.plan import plan

    steps = plan(
        args.dataset,
        args.schedule,
        base_plans=args.base_plans,
        first_trainer=args.step0_trainer,
        force=args.force,
        say=_say,
    )
    for step in steps:
        what = "written" if step.written else "unchanged"
        print(f"step {step.plan.step}: {', '.join(step.plan.new_classes)}  ({what}: {step.file})")
    previous = [step.plan.previous for step in steps[1:2]]
    trainer = next((p.trainer for p in previous if p is not None), None) or "nnUNetTrainerPGCD"
    available = steps[0].configurations
    configuration = "3d_fullres" if "3d_fullres" in available else available[0]
    print(f"\nTrain the steps in this order, for example {configuration}, fold 0:")
    for step in steps:
        dataset = args.dataset if step.dataset == steps[0].dataset else step.dataset
        print(f"  nnUNetv2_train {dataset} {configuration} 0 -tr {trainer} -p {step.plans_name}")
    return 0


def _add_schedules(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "schedules",
        help="list the shipped schedules, explain one, or make one for a data set",
        description="Without a NAME: the list. With one: its steps, settings and source. 'nnunet_cil schedules new DATASET "
        "--steps 8,3,2' writes a schedule for a data set in nnUNet_raw.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="a shipped schedule, a JSON file, or: new")
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help="new: ID or name of the data set")
    parser.add_argument("--steps", metavar="N,N,...", help="new: how many classes each step learns")
    parser.add_argument(
        "--order",
        default="label",
        metavar="ORDER",
        help="new: label, size (largest first), name or random (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="new: of a random order (default: %(default)s)")
    parser.add_argument("-o", dest="output", type=Path, metavar="FILE", help="new: the file (default: ./NAME.json)")
    parser.add_argument("--markdown", action="store_true", help="the list with all classes, as plans/README.md")
    parser.set_defaults(run=_run_schedules)


def _run_schedules(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.data import schedules

    if args.name == "new":
        file = schedules.new(
            _given(args.dataset, "DATASET"),
            _numbers(_given(args.steps, "--steps")),
            order=args.order,
            seed=args.seed,
            output=args.output,
        )
        print(f"{schedules.explain(file)}\nWritten: {file}")
    elif args.dataset is not None:
        raise CILError(f"Only 'new' takes a data set: nnunet_cil schedules new {args.dataset} --steps 8,3,2")
    elif args.name is not None:
        print(schedules.explain(args.name))
    else:
        print(schedules.readme() if args.markdown else schedules.listing(), end="" if args.markdown else "\n")
    return 0


def _given(value: str | None, what: str) -> str:
    if value is None:
        raise CILError(f"'schedules new' needs {what}: nnunet_cil schedules new DATASET --steps 8,3,2")
    return value


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError as error:
        raise CILError(f"--steps {text!r} should be whole numbers with commas between, as in 8,3,2.") from error


def _add_schedule_arguments(parser: argparse.ArgumentParser) -> None:
    """What run, status and evaluate have in common. Said in the order that works: FOLD and -tr take all that follows."""
    parser.usage = "%(prog)s DATASET CONFIG FOLD [FOLD ...] SCHEDULE -tr TRAINER [TRAINER ...] [options]"
    parser.add_argument(
        "dataset", metavar="DATASET", help="ID or name of the data set; of the first step's where there are several"
    )
    parser.add_argument("configuration", metavar="CONFIG", help="2d, 3d_lowres or 3d_fullres")
    parser.add_argument("folds", metavar="FOLD", nargs="+", type=_fold, help="one or several folds, or all")
    parser.add_argument("schedule", metavar="SCHEDULE", help="name of a shipped schedule, or a JSON file")
    parser.add_argument(
        "-tr",
        dest="trainers",
        nargs="+",
        action="extend",
        required=True,
        metavar="TRAINER",
        help="one or several trainers",
    )
    parser.add_argument(
        "-p", dest="base_plans", default="nnUNetPlans", metavar="BASE_PLANS", help="as for plan (default: %(default)s)"
    )


def _fold(text: str) -> int | str:
    if text == "all" or text.isdigit():
        return text if text == "all" else int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no fold (0 to 4, or all). The order is DATASET CONFIG FOLD SCHEDULE")


def _add_test_arguments(parser: argparse.ArgumentParser) -> None:
    """What run and evaluate have in common."""
    parser.add_argument("-i", dest="images", type=Path, metavar="IMAGES", help="folder of test images")
    parser.add_argument("-l", dest="labels", type=Path, metavar="LABELS", help="folder of their true labels")
    parser.add_argument("-o", dest="output", type=Path, metavar="OUT", help="where predictions and tables go")
    parser.add_argument(
        "-device", default="cuda", choices=["cpu", "cuda", "mps"], help="as nnU-Net's (default: %(default)s)"
    )


_WHICH_CASES = (
    "Without -i and -l: imagesTs and labelsTs of the raw data set, or else the fold's validation cases. With a schedule over "
    "several data sets: those of each, and a class is scored on the cases of the data sets that label it."
)


def _add_run(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "run",
        help="a whole schedule: plan, train every step, predict, score",
        description="Preprocesses (if need be), plans, trains every step of every trainer in order with nnUNetv2_train, and "
        "scores all steps as 'nnunet_cil evaluate' does. What is finished is skipped, what was interrupted goes on; run it "
        "again after a crash. Step 0 is trained once for all trainers, unless it was planned otherwise before. "
        + _WHICH_CASES,
    )
    _add_schedule_arguments(parser)
    _add_test_arguments(parser)
    parser.add_argument("-num_gpus", type=int, default=1, help="as nnU-Net's, for training (default: %(default)s)")
    parser.add_argument(
        "--start-from", type=int, default=0, metavar="K", help="first step to train (default: %(default)s)"
    )
    parser.add_argument("--stop-after", type=int, metavar="K", help="last step to train (default: the schedule's last)")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the commands that are left, in order; write the plans, train nothing",
    )
    parser.add_argument(
        "--launcher",
        choices=["slurm", "local"],
        help="a job for each step, fold and trainer, by submitit: slurm submits them with their dependencies and returns; "
        "local runs them on this machine (default: one training after the other, in this process)",
    )
    parser.add_argument(
        "--slurm",
        nargs="+",
        metavar="KEY=VALUE",
        help="what each job asks for, as submitit names it: partition=gpu timeout_min=2880 gres=gpu:1 cpus_per_task=12 "
        "mem_gb=48 (timeout_min is needed)",
    )
    parser.add_argument(
        "--max-jobs",
        type=_positive,
        metavar="N",
        help="with --launcher local: jobs at the same time (default: 1); they share out the GPUs in CUDA_VISIBLE_DEVICES",
    )
    parser.set_defaults(run=_run_run)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def _run_run(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.run.run import Choice, remaining_commands, run

    for option, value, launcher in (("--slurm", args.slurm, "slurm"), ("--max-jobs", args.max_jobs, "local")):
        if value is not None and args.launcher != launcher:
            raise CILError(f"{option} is for --launcher {launcher}.")
    experiment, choice = _experiment(args), Choice(args.start_from, args.stop_after, args.device, args.num_gpus)
    if args.dry_run:
        print("\n".join(remaining_commands(experiment, choice, **_test_cases(args))))
        return 0
    if args.launcher == "slurm":
        _submit(args, experiment, choice)
        return 0
    if args.launcher == "local":
        found = _run_locally(args, experiment, choice)
    else:
        found = run(experiment, choice, **_test_cases(args), say=_say)
    print("The steps asked for are trained." if found is None else f"\n{found.summary}\nAll of it: {found.folder}")
    return 0


def _submit(args: argparse.Namespace, experiment: Experiment, choice: Choice) -> None:
    from nnunet_cil.workflows.run.jobs import job_graph
    from nnunet_cil.workflows.run.run import logs_folder
    from nnunet_cil.workflows.run.slurm import submit

    logs = logs_folder(experiment)
    jobs = job_graph(experiment, choice, **_test_cases(args))
    submit(jobs, logs, key_values("--slurm", args.slurm or ()), say=_say)
    status = shlex.join(["nnunet_cil", "status", *experiment.arguments])
    print(f"Logs: {logs}\nHow far it is: {status}" if jobs else "Everything is finished; nothing was submitted.")


def _run_locally(args: argparse.Namespace, experiment: Experiment, choice: Choice) -> Evaluation | None:
    from nnunet_cil.workflows.evaluate.evaluate import evaluated
    from nnunet_cil.workflows.run.jobs import job_graph, run_locally
    from nnunet_cil.workflows.run.run import logs_folder

    jobs = job_graph(experiment, choice, **_test_cases(args))
    print(f"{len(jobs)} jobs to do", flush=True)
    # a kill ends the jobs, too; only here, since a pool of processes that inherits this never ends
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_locally(jobs, logs_folder(experiment), max_jobs=args.max_jobs or 1, say=_say)
    finally:
        signal.signal(signal.SIGTERM, before)
    return evaluated(experiment, **_test_cases(args)) if choice.reaches_the_end(experiment) else None


def _say(line: str) -> None:
    print(line, flush=True)


def _experiment(args: argparse.Namespace) -> Experiment:
    from nnunet_cil.workflows.experiment import Experiment

    folds, trainers = tuple(args.folds), tuple(args.trainers)
    return Experiment(args.dataset, args.configuration, folds, args.schedule, trainers, args.base_plans)


def _test_cases(args: argparse.Namespace) -> dict[str, Any]:
    return {"images": args.images, "labels": args.labels, "output": args.output}


def _add_status(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "status",
        help="which steps of a schedule are trained, running or missing",
        description="One line a model: its state, and the mean Dice on the fold's validation cases.",
    )
    _add_schedule_arguments(parser)
    parser.set_defaults(run=_run_status)


def _run_status(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.run.run import status

    print(status(_experiment(args)))
    return 0


def _add_evaluate(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "evaluate",
        help="score every step's model: old and new classes, forgetting",
        description="Predicts the cases with every step's model (nnUNetv2_predict), scores them (Dice, HD95, ASD, normalised "
        "surface Dice; classes matched by name) and writes tables, figures and report.html. What is there already is not "
        "done again. " + _WHICH_CASES,
    )
    _add_schedule_arguments(parser)
    _add_test_arguments(parser)
    parser.add_argument(
        "--tolerance",
        type=_distance,
        default=2.0,
        metavar="MM",
        help="of the normalised surface Dice, in mm (default: %(default)s)",
    )
    parser.set_defaults(run=_run_evaluate)


def _distance(text: str) -> float:
    number = float(text)
    if not number >= 0:
        raise argparse.ArgumentTypeError(f"{text} is not at least 0")
    return number


def _run_evaluate(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.evaluate.evaluate import evaluate

    found = evaluate(
        _experiment(args),
        **_test_cases(args),
        device=args.device,
        tolerance_mm=args.tolerance,
        say=_say,
    )
    print(f"\n{found.summary}\nAll of it: {found.folder}")
    return 0


def key_values(option: str, pairs: Sequence[str]) -> dict[str, Any]:
    """``["partition=gpu", "timeout_min=60"]`` -> ``{"partition": "gpu", "timeout_min": 60}``; values may be JSON.

    Raises:
        CILError: one is not KEY=VALUE.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not key or not separator:
            raise CILError(f"{option} takes KEY=VALUE, not {pair!r}.")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return found


def _add_extend(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "extend",
        help="teach a trained nnU-Net model classes of another data set",
        description="Takes any nnU-Net v2 model and a raw data set in which other classes are labelled: checks that they fit, "
        "moves the model's plans onto the data set, preprocesses it, writes the plans of a step that continues from the model, "
        "and prints the training command. The new model segments the old classes and the new ones.",
    )
    parser.add_argument("model", metavar="MODEL_FOLDER", type=Path, help="with plans.json, dataset.json and fold_X")
    parser.add_argument("dataset", metavar="DATASET", help="ID or name of a data set in nnUNet_raw")
    parser.add_argument(
        "-tr",
        dest="trainer",
        default="nnUNetTrainerPGCD",
        metavar="TRAINER",
        help="that is to learn the step (default: %(default)s)",
    )
    parser.add_argument(
        "--classes", nargs="+", default=[], metavar="CLASS", help="to learn (default: all that the model does not know)"
    )
    parser.add_argument(
        "--refine",
        nargs="+",
        default=[],
        metavar="CLASS",
        help="classes that the model knows and the data set labels, too: the same organ; the labels win over the model",
    )
    parser.add_argument(
        "-c", dest="configuration", metavar="CONFIG", help="the model's (default: what it was trained with)"
    )
    parser.add_argument(
        "-f", dest="folds", nargs="+", default=[], metavar="FOLD", help="folds to continue (default: all trained ones)"
    )
    parser.add_argument("--name", default="", metavar="NAME", help="of the step (default: the new classes)")
    parser.add_argument(
        "-p",
        dest="plans_name",
        default="",
        metavar="PLANS",
        help="name of the moved plans (default: the model's + FromXXX)",
    )
    parser.add_argument(
        "--training",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="as in a schedule: num_epochs=250 initial_lr=0.003",
    )
    parser.add_argument(
        "--hyperparameters", nargs="+", default=[], metavar="KEY=VALUE", help="of that trainer: old_dice_weight=0.5"
    )
    parser.add_argument("--force", action="store_true", help="go on where model and data set differ dangerously")
    parser.set_defaults(run=_run_extend)


def _run_extend(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.models.extend import Wish, extend

    wish = Wish(
        args.trainer,
        tuple(args.classes),
        tuple(args.refine),
        args.configuration,
        tuple(args.folds),
        args.name,
        args.plans_name,
        key_values("--training", args.training),
        key_values("--hyperparameters", args.hyperparameters),
        args.force,
    )
    found = extend(args.model, args.dataset, wish, say=_say)
    print(
        f"\nThe model knows {', '.join(found.plan.old_classes)}; the step learns {', '.join(found.plan.new_classes)}."
    )
    print(f"Plans: {found.file}\n\nTrain, then predict:")
    configuration, what = found.model.configuration, f"-tr {found.trainer} -p {found.plans_name}"
    for fold in found.folds:
        print(f"  nnUNetv2_train {found.dataset} {configuration} {fold} {what}")
    folds = " ".join(found.folds)
    print(f"  nnUNetv2_predict -d {found.dataset} -c {configuration} -f {folds} {what} -i IMAGES -o OUT")
    return 0


def _add_export(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "export",
        help="a plain nnU-Net model, for machines without this plug-in",
        description="Writes a model folder that plain nnU-Net predicts with: the trainer's name rewritten, nothing kept but what "
        "prediction needs, where the classes come from in dataset.json and MODEL_CARD.md.",
    )
    parser.add_argument(
        "model", metavar="MODEL_FOLDER", type=Path, help="nnUNet_results/DATASET/TRAINER__PLANS__CONFIG"
    )
    parser.add_argument(
        "output",
        metavar="OUT",
        type=Path,
        help="folder that takes DATASET/nnUNetTrainer__PLANS__CONFIG, or the archive",
    )
    parser.add_argument(
        "--zip",
        action="store_true",
        help="write one archive, for nnUNetv2_install_pretrained_model_from_zip",
    )
    parser.set_defaults(run=_run_export)


def _run_export(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.models.export import export

    print(export(args.model, args.output, zipped=args.zip))
    return 0


def _add_info(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "info",
        help="what a model knows, and where it learnt it",
        description="Prints the classes with step, data set, trainer and date; the steps with versions and hashes; and the "
        "prototypes: norm, number of voxels, nearest class.",
    )
    parser.add_argument("model", metavar="MODEL", type=Path, help="a model folder of nnUNet_results, or a checkpoint")
    parser.set_defaults(run=_run_info)


def _run_info(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.models.info import describe

    print(describe(args.model))
    return 0


def _add_convert(commands: _Commands[argparse.ArgumentParser]) -> None:
    from nnunet_cil.datasets.catalogue import NAMES

    parser = commands.add_parser(
        "convert",
        help="turn a public data set into an nnU-Net raw data set",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Reads a download as it comes, checks every case, says everything that is wrong at once, and only\n"
        "then writes nnUNet_raw/DatasetXXX_NAME. Goes on where an interrupted run stopped.",
        epilog="\n".join(["NAME is one of:", *(f"  {name:18}{text}" for name, text in NAMES.items())]),
    )
    parser.add_argument("name", metavar="NAME", choices=NAMES, help="which data set; listed below")
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the download: its folder, or the archive")
    parser.add_argument("dataset_id", metavar="DATASET_ID", type=int, help="nnU-Net's data set ID, 1 to 999")
    parser.add_argument("--copy", action="store_true", help="copy images that could be linked")
    parser.add_argument(
        "--leave-out-faulty", action="store_true", help="convert the cases that have no serious problem"
    )
    parser.add_argument(
        "--accept",
        nargs="+",
        default=(),
        metavar="KIND",
        choices=["modality", "duplicate", "intensities"],
        help="problems that are as they should be: %(choices)s",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write all that was found to FILE")
    own = parser.add_argument_group("options of some data sets")
    own.add_argument(
        "--classes", nargs="+", metavar="CLASS", help="label these, in this order (openkbp, totalsegmentator)"
    )
    own.add_argument("--split", metavar="NAME", help="transunet or swin-unetr (btcv); validation or test (amos22)")
    own.add_argument("--modality", metavar="NAME", help="CT, MR or both (amos22); CT, T1DUAL or T2SPIR (chaos)")
    own.add_argument(
        "--cases",
        type=Path,
        metavar="FILE",
        help='just these: a JSON file {"train": [...], "test": [...]} (openkbp, msd)',
    )
    own.add_argument(
        "--keep-incomplete",
        action="store_true",
        default=None,
        help="keep patients who lack a contour; they have the organ, so they are left out by default (openkbp)",
    )
    own.add_argument("--names", type=Path, metavar="FILE", help="a JSON file with the classes (generic)")
    parser.set_defaults(run=_run_convert)


def _run_convert(args: argparse.Namespace) -> int:
    from nnunet_cil.host.folders import read_json
    from nnunet_cil.workflows.data.convert import SHOWN, convert

    names = ("classes", "split", "modality", "cases", "keep_incomplete", "names")
    options = {name: value for name in names if (value := getattr(args, name)) is not None}
    if "cases" in options:
        options["cases"] = read_json(options["cases"], "Give --cases an existing JSON file.")
    done = convert(
        args.name,
        args.source,
        args.dataset_id,
        options=options,
        copy=args.copy,
        leave_out_faulty=args.leave_out_faulty,
        accept=args.accept,
        report=args.report,
    )
    print(done.findings.text(limit=SHOWN))
    found = done.converted
    print(
        f"{found.num_train} training and {found.num_test} test cases are in {found.folder} ({found.num_written} new)."
    )
    print(f"Next: nnUNetv2_plan_and_preprocess -d {args.dataset_id} -c 3d_fullres --verify_dataset_integrity")
    return 0


def _add_inspect(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "inspect",
        help="what a raw data set holds: volumes, sizes, left and right, pictures",
        description="Measures every label map of a data set in nnUNet_raw: cases and volumes of each class, grids, and "
        "whether left lies left of right. Writes a page with pictures that opens offline.",
    )
    parser.add_argument("dataset", metavar="DATASET", help="ID or name of the data set")
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FILE", help="the page (default: inspection.html in its folder)"
    )
    parser.add_argument("--pictures", type=int, default=4, metavar="N", help="cases to show (default: %(default)s)")
    parser.set_defaults(run=_run_inspect)


def _run_inspect(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.data.inspect import inspect

    found = inspect(args.dataset, output=args.output, num_pictures=args.pictures)
    print(f"{found.summary}\n\nPage: {found.page}")
    return 0


def _add_demo(commands: _Commands[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "demo",
        help="the whole story on generated volumes, on a laptop, in minutes",
        description="Generates a small data set, learns its organs in three steps, once by fine-tuning and once with "
        "PGCD, and shows what each has forgotten. Everything stays in one folder; run it again to go on.",
    )
    parser.add_argument(
        "-o",
        dest="output",
        type=Path,
        default=Path("nnunet_cil_demo"),
        metavar="FOLDER",
        help="where everything goes (default: ./%(default)s)",
    )
    parser.add_argument(
        "-device",
        default="auto",
        choices=["auto", "cpu", "cuda", "mps"],
        help="as nnU-Net's; auto takes cuda where there is one (default: %(default)s)",
    )
    parser.set_defaults(run=_run_demo)


def _run_demo(args: argparse.Namespace) -> int:
    from nnunet_cil.workflows.demo import demo

    result = demo(args.output, device=args.device, say=_say)
    print(result.table)
    print(f"\nPicture: {result.picture}\nTable:   {result.table_file}")
    return 0


if __name__ == "__main__":
    entry()
