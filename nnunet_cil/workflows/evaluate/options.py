"""The options of ``nnunet_cil evaluate``, which ``run`` shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnunet_cil.errors import CILError
from nnunet_cil.files import shortened
from nnunet_cil.limits import DEFAULT_TOLERANCE_MM, MAX_TOLERANCE_MM, check_device, is_number
from nnunet_cil.workflows.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The cases on which models are scored, how, and where the results go.

    Attributes:
        images: folder of test images, with ``labels``. Without: imagesTs and labelsTs of the raw data set; without these, the
            validation cases of each fold, which nnU-Net has predicted already. Not for a schedule over several data sets:
            there each one's test or validation cases are predicted, and a class is scored on the cases that label it.
        labels: folder of the reference labels, numbered as the data set's.
        cases: "test" refuses a data set without imagesTs and labelsTs; "validation" takes the validation cases although there
            are test cases.
        output: takes everything; default: a folder ``evaluation`` in the data set's results.
        device: for predictions.
        tolerance_mm: of the normalised surface Dice.
    """

    images: Path | None = None
    labels: Path | None = None
    cases: Literal["test", "validation"] | None = None
    output: Path | None = None
    device: str = "cuda"
    tolerance_mm: float = DEFAULT_TOLERANCE_MM

    def __post_init__(self) -> None:
        """Refuses options that do not go together.

        Raises:
            CILError: images without labels, labels without images, or both beside validation cases; a tolerance out of its range.
        """
        if not is_number(self.tolerance_mm, 0, MAX_TOLERANCE_MM):
            raise CILError(
                f"--tolerance is {shortened(self.tolerance_mm)}, but must be a distance in mm: a number from 0 to "
                f"{MAX_TOLERANCE_MM}."
            )
        check_device(self.device)
        if self.cases not in (None, "test", "validation"):
            raise CILError(f"--cases is {shortened(self.cases)}, but must be test or validation.")
        if (self.images is None) != (self.labels is None):
            raise CILError("Give -i IMAGES and -l LABELS together.")
        if self.cases == "validation" and self.images is not None:
            raise CILError("--cases validation takes no -i and -l: it scores the validation cases of the folds.")

    @property
    def arguments(self) -> list[str]:
        """Returns what follows the experiment on the command line."""
        given: dict[str, object] = {"-i": self.images, "-l": self.labels, "-o": self.output, "--cases": self.cases}
        if self.tolerance_mm != DEFAULT_TOLERANCE_MM:
            given["--tolerance"] = self.tolerance_mm
        values = [text for option, value in given.items() if value is not None for text in (option, str(value))]
        return ["-device", self.device, *values]


def evaluate_command(experiment: Experiment, options: EvaluationOptions) -> list[str]:
    """Returns the command that scores the models of an experiment."""
    return ["nnunet_cil", "evaluate", *experiment.arguments, *options.arguments]
