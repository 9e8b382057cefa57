"""The trainers that nnU-Net finds, by name, and the data that each of them can train on."""

from __future__ import annotations

import contextlib
import io
import runpy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import shortened
from nnunet_cil.lineage import StepRecord
from nnunet_cil.shipped import trainer_names, trainers_file
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.training.cascade_inputs import keeps_old_inputs_first
from nnunet_cil.training.hyperparameters import declared, settable, taken

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL


def find_trainer(name: str) -> type:
    """Returns the class that nnU-Net finds by a trainer's name, nnunet_cil's or any other; what it prints is dropped.

    Raises:
        RuntimeError: it finds none.
        TypeError: the name is there, but of no class.
    """
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    with contextlib.redirect_stdout(io.StringIO()):
        trainer: type = recursive_find_trainer_class_by_name(name)
    return trainer


def trainer_class(name: str) -> type[nnUNetTrainerCIL]:
    """Returns the trainer of that name.

    Raises:
        CILError: nnU-Net does not find it, or it is none of nnunet_cil's.
    """
    from nnunet_cil.training.base import nnUNetTrainerCIL

    try:
        trainer = find_trainer(name)
    except (RuntimeError, TypeError) as error:
        raise CILError(_not_found(name)) from error
    if not issubclass(trainer, nnUNetTrainerCIL):
        raise CILError(f"{name} knows nothing of steps; a step needs one of nnunet_cil's trainers.")
    return trainer


def is_installed(name: str) -> bool:
    """Tells whether nnU-Net finds a trainer, nnunet_cil's or any other; whoever runs its commands finds nnunet_cil's."""
    if name in trainer_names():
        return True
    try:
        find_trainer(name)
    except (RuntimeError, TypeError):
        return False
    return True


def _not_found(name: str) -> str:
    """Says why nnU-Net does not find a trainer: the variable, where the name is right, else the name."""
    said = f"nnU-Net does not find the trainer {name!r}"
    if name in trainer_names():
        remedy = 'export nnUNet_extTrainer="$(nnunet_cil trainers)"'
        return f"{said}, which is nnunet_cil's. Run '{remedy}'; where that is set, ask 'nnunet_cil doctor'."
    full = name if name.startswith("nnUNetTrainer") else f"nnUNetTrainer{name}"
    return f"{said}{did_you_mean(full, trainer_names())}. Check its spelling, and nnUNet_extTrainer with 'nnunet_cil doctor'."


def check_trainer_names(names: Iterable[str]) -> None:
    """Refuses a name that is neither nnunet_cil's nor found by nnU-Net; the slow search is left out for nnunet_cil's own."""
    for name in names:
        if name not in trainer_names():
            trainer_class(name)


def check_data(trainer: type[nnUNetTrainerCIL], step: StepPlan, dataset: str) -> None:
    """Refuses labels that a trainer cannot read, and data that lack what it needs.

    Args:
        trainer: a trainer class.
        step: the step to train.
        dataset: nnU-Net's name of the data set that it is trained on.

    Raises:
        CILError: with the trainers that can, or the reason.
    """
    where = f"step {step.step} of {step.schedule}"
    start = step.hyperparameters.get("new_class_start", "fresh")
    if step.has_regions and start != "fresh":
        raise CILError(
            f"{where} sets new_class_start to {start!r}, a start from the background, which a model of regions does not have. "
            "Remove it: new regions start as nnU-Net's fresh layer."
        )
    if reason := _unsuited(trainer, step, dataset):
        others = [n for n in _ADVISED if n != trainer.__name__ and not _unsuited(trainer_class(n), step, dataset)]
        raise CILError(f"{trainer.__name__} {reason}. Use {' or '.join(others) or 'another trainer'}.")


_ADVISED = ("nnUNetTrainerPGCD", "nnUNetTrainerMiB", "nnUNetTrainerPseudoLabel", "nnUNetTrainerLwF")


def _unsuited(trainer: type[nnUNetTrainerCIL], step: StepPlan, dataset: str) -> str | None:
    """Says why a trainer cannot learn a step; None where it can."""
    where = f"step {step.step} of {step.schedule}"
    if step.has_regions and trainer.needs_background:
        return f"{trainer.needs_background}, but {where} has regions, without a channel for it"
    is_partial = step.differs_by_case or (trainer.needs_old_data and step.labelled)
    if is_partial and not trainer.reads_partial_labels:
        return f"takes label 0 for background, but the labels of {where} don't show the same classes in every case"
    if step.refined and not (trainer.refines or trainer.reads_partial_labels):
        return f"does not learn from labels of old classes, but {where} refines {', '.join(step.refined)}"
    if trainer.needs_new_classes and not step.new_classes:
        return f"would keep nothing of {where}, which has no new class"
    elsewhere = step.previous is not None and (step.previous.dataset != dataset or step.previous.folder is not None)
    if trainer.needs_old_data and (elsewhere or step.evaluated_classes != step.seen_classes):
        return f"needs the data of the earlier steps, but {where} is learnt on {dataset} alone, with the labels of it"
    return None


def check_lineage(trainer: type[nnUNetTrainerCIL], lineage: Sequence[StepRecord], dataset: str) -> None:
    """Refuses a trainer that needs the earlier steps' data where these were trained on another data set.

    Args:
        trainer: a trainer class.
        lineage: the records of the model that is continued.
        dataset: nnU-Net's name of the data set that the step is trained on.

    Raises:
        CILError: with the other data sets.
    """
    others = sorted({record.dataset for record in lineage} - {dataset})
    if trainer.needs_old_data and others:
        raise CILError(
            f"{trainer.__name__} needs the data of the earlier steps, but some were learnt on {', '.join(others)}, not on "
            f"{dataset}. Use another trainer."
        )


def check_cascade(trainer: type[nnUNetTrainerCIL], step: StepPlan) -> None:
    """Refuses a step that a trainer cannot learn as a cascade.

    Args:
        trainer: a trainer class.
        step: the step to train.

    Raises:
        CILError: says why.
    """
    if step.step == 0:
        return
    refuse_kept_cases(trainer, step.cases is not None)
    if trainer.compares_weights:
        check_place_of_inputs(trainer, step)


def refusals_of_cascades(steps: Iterable[StepPlan]) -> list[str]:
    """Returns why some of nnunet_cil's trainers cannot learn steps as cascades, one reason a trainer."""
    reasons: dict[str, str] = {}
    planned = [step for step in steps if step.cases is not None or step.has_regions]
    for trainer in _trainers() if planned else ():
        for step in planned:
            try:
                check_cascade(trainer, step)
            except CILError as error:
                reasons.setdefault(trainer.__name__, str(error))
    return list(reasons.values())


def check_place_of_inputs(trainer: type[nnUNetTrainerCIL], step: StepPlan) -> None:
    """Refuses a cascade whose inputs of the step before have moved, for a trainer that compares weights by their place.

    Raises:
        CILError: names the trainer.
    """
    if not keeps_old_inputs_first(step):
        raise CILError(
            f"{trainer.__name__} compares weights with the step before by their place, but with {', '.join(step.new_classes)} "
            "the inputs of a cascade stand for other regions than before. Use nnUNetTrainerPGCD, or train 3d_fullres."
        )


def refuse_kept_cases(trainer: type[nnUNetTrainerCIL], is_disjoint: bool) -> None:
    """Refuses a cascade of a trainer that keeps cases of earlier steps, which no model of its own step validates.

    Args:
        trainer: its class.
        is_disjoint: whether each step has cases of its own.

    Raises:
        CILError: names the trainer.
    """
    if trainer.keeps_cases and is_disjoint:
        raise CILError(
            f"{trainer.__name__} keeps cases of earlier steps, but of these no model of the stage before a cascade makes "
            "predictions. Let the steps share their cases, or train 3d_fullres."
        )


def hyperparameter_names() -> set[str]:
    """Returns the names of all hyper-parameters that a schedule may set on nnunet_cil's trainers."""
    return {name for trainer in _trainers() for name in settable(trainer)}


def fixed_everywhere() -> dict[str, str]:
    """Returns the hyper-parameters that every trainer of nnunet_cil fixes: name -> the reasons that they give."""
    free, reasons = hyperparameter_names(), defaultdict[str, dict[str, None]](dict)
    for trainer in _trainers():
        for name, parameter in declared(trainer).items():
            if name not in free:
                reasons[name][parameter.meaning] = None
    return {name: "; ".join(given) for name, given in reasons.items()}


def check_hyperparameters(values: Mapping[str, Any], where: str) -> None:
    """Refuses values that none of nnunet_cil's trainers takes. Names that none has may be of a trainer of the user's own.

    Args:
        values: by name, as in a schedule.
        where: the file and step that set them, for the message.

    Raises:
        CILError: with what is allowed.
    """
    trainers, fixed = (_trainers(), fixed_everywhere()) if values else ([], {})
    for name, value in values.items():
        having = [trainer for trainer in trainers if name in declared(trainer)]
        if not having or any(taken(trainer, {name: value}) for trainer in having):
            continue
        said = f"{where}: the hyper-parameter {name!r} is {shortened(value)}, but"
        if name in fixed:
            raise CILError(f"{said} every trainer fixes it: {fixed[name]}. Remove it.")
        expected = (settable(trainer)[name].check(value) for trainer in having if name in settable(trainer))
        raise CILError(f"{said} must be {max(map(str, expected), key=len)}.")


def _trainers() -> list[Any]:
    return [value for value in runpy.run_path(str(trainers_file())).values() if isinstance(value, type)]
