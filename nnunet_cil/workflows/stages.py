"""The two stages of a cascade: whether a trained cascade saw the predictions of the models that are there."""

from __future__ import annotations

from collections.abc import Sequence

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.planned_experiment import PlannedExperiment


def refuse_other_stages(planned: PlannedExperiment) -> None:
    """Refuses a cascade that saw predictions of other models than are there.

    Raises:
        CILError: names it, and the remedy.
    """
    for model in planned.model_folds() if planned.before is not None else ():
        refuse_other_stage(model, planned.folds_before(model))


def refuse_other_stage(model: ModelFold, before: Sequence[ModelFold]) -> None:
    """Refuses a cascade that saw predictions of other models than are there.

    Args:
        model: of the cascade.
        before: the folds of the model before it.

    Raises:
        CILError: names it, and the remedy.
    """
    if model.saw_other_stages(before):
        raise CILError(
            f"The cascade in {model.folder} was trained on predictions of other models of step {model.step} than are in "
            f"{before[0].model.folder}. Restore these, or remove {model.folder} and train it again."
        )


def check_stages(planned: PlannedExperiment, device: str) -> None:
    """Refuses a cascade that cannot predict new cases as it was trained: the model of its fold before it must be there.

    Raises:
        CILError: it is not trained, or was trained again since; says what to do.
    """
    for model in planned.model_folds():
        if (before := planned.before_in_fold(model)) is not None:
            before.check_trained(device)
            before.check_planned()
    refuse_other_stages(planned)
