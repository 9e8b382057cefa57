"""The cases of a fold as they are split now, held against the records of the models that are trained and scored on them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_cil.case_hashes import CaseHashes
from nnunet_cil.errors import CILError, few_names
from nnunet_cil.lineage import StepRecord


@dataclass(frozen=True, kw_only=True)
class FoldCases:
    """The training and validation cases of a fold, by name.

    Attributes:
        dataset: nnU-Net's name of the data set.
        fold: nnU-Net's; ``all`` has no validation cases.
        training: its training cases.
        validation: its validation cases.
        split_file: where nnU-Net keeps the split.
    """

    dataset: str
    fold: int | str
    training: tuple[str, ...]
    validation: tuple[str, ...]
    split_file: Path

    @classmethod
    def of(
        cls, dataset: str, fold: int | str, training: Iterable[str], validation: Iterable[str], split_file: Path
    ) -> FoldCases:
        """Takes the two lists of nnU-Net's split; in fold ``all`` it names every case in both."""
        own = () if fold == "all" else tuple(validation)
        return cls(dataset=dataset, fold=fold, training=tuple(training), validation=own, split_file=split_file)

    @property
    def hashes(self) -> CaseHashes:
        """The cases as a record keeps them; with another key at every call."""
        return CaseHashes.of(self.training, self.validation)

    def check_against(self, lineage: Iterable[StepRecord]) -> list[str]:
        """Refuses validation cases that a model was trained on, at any of its steps.

        Args:
            lineage: the records of the model's trainings; those on other data sets do not count.

        Returns:
            Remarks on the steps of which it is not known.

        Raises:
            CILError: names the cases and the step.
        """
        remarks = []
        for record in lineage if self.validation else ():
            if record.dataset != self.dataset:
                continue
            step = f"step {record.step}" + (f" ({record.plans})" if record.plans else "")
            if record.case_hashes is None:
                remarks.append(
                    f"It is not recorded which cases of {self.dataset} {step} was trained on: make sure that the validation "
                    f"cases of fold {self.fold} were not among them."
                )
            elif trained := record.case_hashes.trained_on(self.validation):
                raise CILError(
                    f"Fold {self.fold} of {self.dataset} validates on {few_names(trained)}, but {step} was trained on "
                    f"{'it' if len(trained) == 1 else 'them'}: the split has changed since. Restore {self.split_file}, or train "
                    f"step {record.step} and those after it again with the split as it is now."
                )
        return remarks

    def with_validation_of(self, cases: Collection[str] | None) -> FoldCases:
        """Returns the same without validation cases that are not among those of a step; None stands for all."""
        if cases is None:
            return self
        own = set(cases)
        return replace(self, validation=tuple(case for case in self.validation if case in own))

    def changes_since(self, record: StepRecord) -> list[str]:
        """Returns a remark where the fold's cases are others than a training had; none where that is not known."""
        known = record.case_hashes
        if known is None or (record.dataset, record.fold) != (self.dataset, str(self.fold)):
            return []
        differences = known.differences(self.training, self.validation)
        since = f"since step {record.step} was trained" + (f" with {record.plans}" if record.plans else "")
        return (
            [f"The split of fold {self.fold} of {self.dataset} has changed {since} ({differences})."]
            if differences
            else []
        )

    def check_resumed(self, known: CaseHashes, folder: Path) -> None:
        """Refuses to go on with a training that began with other cases.

        Args:
            known: the cases that it began with.
            folder: nnU-Net's, of its fold.

        Raises:
            CILError: says how the cases differ.
        """
        if differences := known.differences(self.training, self.validation):
            raise CILError(
                f"The split of fold {self.fold} of {self.dataset} has changed since this training began ({differences}). Restore "
                f"{self.split_file}, or remove {folder} and train that step again."
            )
