"""The options of ``nnunet_cil evaluate``, which ``run`` shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.experiment import Experiment


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """The cases on which models are scored, how, and where the results go.

    Attributes:
        images: folder of test images, with ``labels``. Without: imagesTs and labelsTs of the raw data set; without these, the
            validation cases of each fold, which nnU-Net has predicted already. Not for a schedule over several data sets:
            there each one's test or validation cases are predicted, and a class is scored on the cases that label it.
        labels: folder of the reference labels, numbered as the data set's.
        output: takes everything; default: a folder ``evaluation`` in the data set's results.
        device: for predictions.
        tolerance_mm: of the normalised surface Dice.
    """

    images: Path | None = None
    labels: Path | None = None
    output: Path | None = None
    device: str = "cuda"
    tolerance_mm: float = 2.0

    def __post_init__(self) -> None:
        """Refuses options that do not go together.

        Raises:
            CILError: images without labels, or labels without images.
        """
        if (self.images is None) != (self.labels is None):
            raise CILError("Give -i IMAGES and -l LABELS together.")

    @property
    def paths(self) -> dict[str, Path]:
        """Returns the folders that are given, by their option on the command line."""
        paths = {"-i": self.images, "-l": self.labels, "-o": self.output}
        return {option: path for option, path in paths.items() if path is not None}


def evaluate_command(experiment: Experiment, options: EvaluationOptions) -> list[str]:
    """Returns the command that scores the models of an experiment."""
    paths = [text for option, path in options.paths.items() for text in (option, str(path))]
    return ["nnunet_cil", "evaluate", *experiment.arguments, "-device", options.device, *paths]
