"""Logs a step's own values of every epoch, beside nnU-Net's own values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_cil.networks.teacher import Teacher
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.training.progress import (
    fill_around_epochs,
    plot_terms,
    record_online_dice,
    record_terms,
    recorded_terms,
)
from nnunet_cil.training.step_loss import StepLoss


class EpochLogs(nnUNetTrainer):
    """nnU-Net's trainer, whose loggers also get the loss terms, and the online Dice of old and of new classes apart."""

    teacher: Teacher | None
    step_plan: StepPlan

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        """Ends the epoch's training as nnU-Net, and logs the mean of each loss term."""
        super().on_train_epoch_end(train_outputs)
        fill_around_epochs(self.logger, self.current_epoch)
        if isinstance(self.loss, StepLoss):
            record_terms(self.logger, self.loss.mean_terms(), self.current_epoch)

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        """Ends the epoch's validation as nnU-Net, and logs the online Dice of old and of new classes apart."""
        super().on_validation_epoch_end(val_outputs)
        if self.teacher is not None:
            step = self.step_plan
            old = [index for index, name in enumerate(step.model_classes) if name in step.old_classes]
            record_online_dice(self.logger, old, self.current_epoch)

    def on_epoch_end(self) -> None:
        """Ends the epoch as nnU-Net, with the loss terms in the log and in a plot beside ``progress.png``."""
        terms = recorded_terms(self.logger)
        if terms:
            self.print_to_log_file("train_loss terms:", ", ".join(f"{k} {v[-1]:.4f}" for k, v in terms.items()))
        super().on_epoch_end()
        if terms and self.local_rank == 0:
            plot_terms(terms, Path(self.output_folder) / "progress_loss_terms.png")
