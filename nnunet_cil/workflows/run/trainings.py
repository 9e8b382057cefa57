"""The trainings of an experiment that are left to do."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from nnunet_cil.host.commands import CommandError
from nnunet_cil.training.catalogue import trainer_class
from nnunet_cil.training.volumes.store import Claim, VolumeStore
from nnunet_cil.workflows.fold_records import check_trained_before
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run.options import TrainingOptions
from nnunet_cil.workflows.stages import refuse_other_stages

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
    def is_finished(self) -> bool:
        """Tells whether nothing is left of it: trained, validated, and with the probabilities that are asked for."""
        lacks = "--npz" in self.options and self.model.cases_without_probabilities
        return self.model.is_finished and not lacks

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
            if self.is_finished:
                return None
            self.model.put_broken_aside()
            try:
                return call()
            except CommandError:
                if self.model.lock.holder() is None and not self.is_finished:  # nobody was faster
                    raise

    @property
    def num_epochs(self) -> int:
        """Returns how many epochs the step is trained for."""
        return self.model.plan.num_epochs

    @property
    def epochs_left(self) -> int:
        """Returns how many of them are left, as the newest checkpoint tells."""
        newest = self.model.newest_checkpoint
        if newest is None or self.model.is_trained:
            return 0 if self.model.is_trained else self.num_epochs
        from nnunet_cil.training.checkpoints import read_checkpoint

        return max(0, self.num_epochs - int(read_checkpoint(newest, lazily=True).get("current_epoch", 0)))


def unfinished_trainings(planned: PlannedExperiment, options: TrainingOptions) -> list[Training]:
    """Returns what is left to train, fold by fold, in order; before a cascade the models whose predictions it sees.

    Raises:
        CILError: a model that is there was trained with other plans, or on top of another model than is there or than there
            is going to be; or the split has changed since a model was trained that is continued.
    """
    todo = [training for stage in planned.stages for training in _unfinished(stage, options)]
    refuse_other_stages(planned)
    if planned.before is not None:
        before, name = planned.before.experiment, planned.experiment.configuration
        own = sum(training.model.model.configuration == before.configuration for training in todo)
        logger.info(
            f"{name} sees what {before.configuration} predicts for cases that it was not trained on: every step needs it in all "
            f"{sum(fold != 'all' for fold in before.folds)} folds. So {own} of the {len(todo)} trainings train "
            f"{before.configuration}."
        )
    return todo


def _unfinished(planned: PlannedExperiment, options: TrainingOptions) -> list[Training]:
    """Returns what is left to train of one configuration; raises as ``unfinished_trainings``."""
    models = options.select(planned.models())
    for model in planned.model_folds():
        if model.is_trained:
            model.check_planned()
    trainings = (
        Training(model=model.fold(fold), options=tuple(options.arguments))
        for fold in planned.experiment.folds
        for model in models
    )
    todo = [training for training in trainings if not training.is_finished]
    unfinished = [training.model for training in todo]
    _check_successions(planned, unfinished, last_step=max(model.step for model in models))
    _check_split(planned, unfinished)
    return todo


def claim_volumes(planned: PlannedExperiment, todo: Iterable[Training]) -> None:
    """Announces the trainings that will need their teacher's volumes, so that the first one leaves them to the next.

    Args:
        planned: the experiment.
        todo: its trainings that are left to do.
    """
    previous = {later: earlier for stage in planned.stages for earlier, later in stage.successions()}
    for model in (training.model for training in todo):
        trainer = trainer_class(model.trainer)
        if model in previous and model.plan.hyperparameters.get("teacher_volumes", trainer.teacher_volumes):
            VolumeStore(model.model.dataset).claim(Claim.of(model.folder, previous[model].checkpoint))


def _check_successions(planned: PlannedExperiment, unfinished: Collection[ModelFold], last_step: int) -> None:
    """Refuses a model that is built upon or scored, and stands on another model of the step before than there is.

    Raises:
        CILError: names both, and the remedy.
    """
    for earlier, later in planned.successions():
        if later.step > last_step:
            continue
        if not later.stands_on(earlier):
            later.check_continues(earlier)
        if earlier in unfinished:
            later.check_origin(earlier)


def _check_split(planned: PlannedExperiment, unfinished: Collection[ModelFold]) -> None:
    """Refuses a split that has changed since a model was trained from which an unfinished one goes on.

    Raises:
        CILError: names the cases.
    """
    previous = {later: earlier for earlier, later in planned.successions()}
    for model in unfinished:
        origin: ModelFold | None = model
        while origin is not None and origin.newest_checkpoint is None:
            origin = previous.get(origin)
        if origin is not None:
            check_trained_before(model, origin)
