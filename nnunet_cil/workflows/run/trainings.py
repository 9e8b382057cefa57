"""The trainings of an experiment that are left to do."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from nnunet_cil.host.commands import CommandError
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run.options import TrainingOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Training:
    """One call of ``nnUNetv2_train``.

    Attributes:
        model: is trained.
        options: further arguments of the command.
    """

    model: ModelFold
    options: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """Returns the arguments that begin, continue or just validate, as nnU-Net's folder is now."""
        going_on = []
        if self.model.is_trained:
            going_on = ["--val"]
        elif self.model.is_begun:
            going_on = ["--c"]
        return [*self.model.train_arguments, *self.options, *going_on]

    @property
    def command(self) -> str:
        """Returns the command as one would type it."""
        return shlex.join(["nnUNetv2_train", *self.arguments])

    def do(self, call: Callable[[], None]) -> None:
        """Does it, unless it is finished. Waits for another process that is at it: two ``run`` may share step 0.

        Args:
            call: runs the command as ``arguments`` are by then.

        Raises:
            CILError: the command failed, or another process is at it that cannot be watched from here.
        """
        while True:
            self.model.lock.wait(logger.info)
            if self.model.is_finished:
                return None
            self.model.put_broken_aside()
            try:
                return call()
            except CommandError:
                if self.model.lock.holder() is None and not self.model.is_finished:  # nobody was faster
                    raise

    @property
    def num_epochs(self) -> int:
        """Returns how many epochs the step is trained for."""
        return self.model.plan.num_epochs


def unfinished_trainings(planned: PlannedExperiment, options: TrainingOptions) -> list[Training]:
    """Returns what is left to train, fold by fold, in order.

    Raises:
        CILError: a model that is there was trained with other plans.
    """
    models = options.select(planned.models())
    for model in planned.model_folds():
        if model.is_trained:
            model.check_planned()
    return [
        Training(model=model.fold(fold), options=tuple(options.arguments))
        for fold in planned.experiment.folds
        for model in models
        if not model.fold(fold).is_finished
    ]
