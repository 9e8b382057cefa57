"""Trains one network a step, as a user might in place of a method, and scores their merged predictions as a study does.

    export nnUNet_extTrainer="$(nnunet_cil trainers)"
    python benchmarks/separate_models.py 900 openkbp_2-2-1_cpu --folds 0 -o mine.csv

Step 0's model is that of the study (benchmarks/study.py). Each later step gets a network of its own: step 0's weights without its
segmentation layers (nnU-Net's -pretrained_weights), trained on the step's labels and patients with nnUNetTrainerFineTune, as long
as the step. All of them predict every case. Their label maps are merged by the names of the classes. Where two name a voxel,
``new_over_old`` takes the class of the later step, ``old_over_new`` that of the earlier one. In the table the rows are those of
the method Separate, with the rule as its setting; a table without rows of step 0 gets these, too. A file beside it, with
_costs.json in its name, has each network's size, and what it took to train and to predict. What is finished is not done again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scores import Row, read_rows
from step_variants import RowName, alone, train_variant, variant
from study import Study, study_of, study_parser

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.results import without_nan
from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.dataset_json import preprocessed_or_raw
from nnunet_cil.host.folders import nnunet_folder, num_processes
from nnunet_cil.host.processes import end_with_parent
from nnunet_cil.labels import has_regions
from nnunet_cil.predicted_from import PredictedFrom
from nnunet_cil.training.checkpoints import num_parameters, read_checkpoint
from nnunet_cil.training.progress import training_seconds
from nnunet_cil.workflows.evaluate.cases import test_sets
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.evaluate.predict import Prediction, predictions_of
from nnunet_cil.workflows.evaluate.score import score_cases
from nnunet_cil.workflows.fold_records import check_validation_cases
from nnunet_cil.workflows.model_fold import ModelFold, StepModel
from nnunet_cil.workflows.planned_experiment import PlannedExperiment

TRAINER = "nnUNetTrainerFineTune"
RULES = "new_over_old", "old_over_new"
TOLERANCE_MM = 2.0


def merged(label_maps: Sequence[tuple[np.ndarray[Any, Any], Mapping[int, int]]]) -> np.ndarray[Any, Any]:
    """Merges label maps of one shape; a later one wins.

    Args:
        label_maps: label maps, and for each what becomes of its numbers.
    """
    found = np.zeros_like(label_maps[0][0])
    for labels, numbers in label_maps:
        for own, number in numbers.items():
            found[labels == own] = number
    return found


@dataclass(frozen=True, kw_only=True)
class SeparateModels:
    """The networks of a schedule's steps, in the folds of an experiment whose only trainer is ``TRAINER``.

    Attributes:
        study: the experiment, and the table that takes the scores.
        planned: the plans of its steps.
    """

    study: Study
    planned: PlannedExperiment

    @classmethod
    def of(cls, study: Study) -> SeparateModels:
        """Plans the steps, and trains what is not trained of step 0.

        Raises:
            CILError: the schedule is of several data sets, or of regions.
        """
        name, data_sets = study.experiment.schedule.name, study.experiment.data_sets
        if len(data_sets) > 1:
            raise CILError(f"{name} learns from several data sets. Use a schedule of one.")
        if has_regions(preprocessed_or_raw(data_sets[0])["labels"]):
            raise CILError(
                f"The classes of {data_sets[0]}, from which {name} learns, are regions: they overlap, so that merged label maps "
                "would lose some. Use a data set without regions."
            )
        study.check_initial_models()
        study.nnunet_cil_run(TRAINER, "--stop-after", "0")
        return cls(study=study, planned=PlannedExperiment.read(study.experiment))

    def run(self, cases: Sequence[Literal["test", "validation"]]) -> None:
        """Trains what is not trained, and adds the scores to the table."""
        for fold in self.study.experiment.folds:
            models = self.trained(int(fold))
            for which in cases:
                self.study.add(list(self.rows(models, which)))

    def trained(self, fold: int) -> list[ModelFold]:
        """Returns the network of each step, trained."""
        first = self.planned.models_of(TRAINER)[0].fold(fold)
        models = [first]
        for step in range(1, len(self.planned.plans)):
            model = self.model(step).fold(fold)
            self.train(model, first)
            models.append(model)
        return models

    def model(self, step: int) -> StepModel:
        """Returns the network of a step after the first, and writes its plans."""
        return variant(self.planned, step, alone(self.planned.plans[step]), TRAINER, "alone")

    def train(self, model: ModelFold, first: ModelFold) -> None:
        """Trains a network from the weights of step 0's; refuses one that began with other weights than are there.

        Raises:
            CILError: it did, or nnU-Net's command failed.
        """
        record, digest = model.folder / "initial_model.json", first.checkpoint_sha256()
        if record.is_file() and read_json(record, "") != {"sha256": digest}:
            raise CILError(f"{model.folder} was trained from another {first.checkpoint}. Restore that, or remove this.")
        record.parent.mkdir(parents=True, exist_ok=True)
        write_json(record, {"sha256": digest})
        weights = () if model.is_begun else ("-pretrained_weights", str(first.checkpoint))
        train_variant(model, self.study.device, self.study.experiment.logs, *weights)

    def rows(self, models: Sequence[ModelFold], which: Literal["test", "validation"]) -> Iterator[Row]:
        """Yields the table's rows of one fold: of step 0 where there are none yet, and of each later step with both rules."""
        if which == "validation":
            check_validation_cases(models, self.study.experiment.data_sets)
        predictions = [self.predictions(model, which) for model in models]
        costs = self.costs(models, predictions)
        self.study.add_costs({f"Separate({rule})": [costs] for rule in RULES})
        with ProcessPoolExecutor(num_processes(), initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
            if not self.has_step_0(models[0].fold, which):
                found = score_cases(
                    predictions[0], models[0].model.plan.labels, TOLERANCE_MM, pool, models[0].model.reader
                )
                yield from map(partial(RowName(method="", setting="", cases=which).row, models[0]), found)
            for step in range(1, len(models)):
                channels = self.planned.plans[step].labels
                for rule in RULES:
                    files = self.merged_predictions(models[: step + 1], predictions[: step + 1], channels, rule, which)
                    found = score_cases(files, channels, TOLERANCE_MM, pool, models[0].model.reader)
                    name = RowName(method="Separate", setting=rule, cases=which)
                    yield from map(partial(name.row, models[step]), found)

    def has_step_0(self, fold: int | str, which: str) -> bool:
        """Tells whether the table has rows of a fold's initial model."""
        rows = read_rows(self.study.results) if self.study.results.is_file() else []
        return ("0", str(fold), which) in {(row["step"], row["fold"], row["cases"]) for row in rows}

    def output(self, which: str) -> Path:
        """Returns the folder of the predictions."""
        e = self.study.experiment
        return nnunet_folder("nnUNet_results") / e.dataset_name / "evaluation" / f"{e.name}_separate_{which}"

    def predictions(self, model: ModelFold, which: Literal["test", "validation"]) -> list[Prediction]:
        """Returns a network's predictions."""
        output, device, digest = self.output(which), self.study.device, model.checkpoint_sha256()
        tests = test_sets(self.planned, model.fold, EvaluationOptions(cases=which, device=device), output)
        return predictions_of(model, tests, output, checkpoint_sha256=digest, device=device)

    def merged_predictions(
        self,
        models: Sequence[ModelFold],
        predictions: Sequence[Sequence[Prediction]],
        channels: Mapping[str, int],
        rule: str,
        which: str,
    ) -> list[Prediction]:
        """Writes the merged label maps of all cases.

        Args:
            models: of the steps so far.
            predictions: of each of them, case by case.
            channels: the numbers of the merged classes, by name.
            rule: one of ``RULES``.
            which: names the folder.
        """
        reader = models[0].model.reader
        folder = self.output(which) / "merged" / rule / f"step{models[-1].step}_fold{models[-1].fold}"
        folder.mkdir(parents=True, exist_ok=True)
        found = []
        for of_case in zip(*predictions, strict=True):
            read = [reader.read_seg(str(prediction.file)) for prediction in of_case]
            numbers = [{m.plan.labels[name]: channels[name] for name in m.plan.seen_classes} for m in models]
            maps = [(labels[0], own) for (labels, _), own in zip(read, numbers, strict=True)]
            labels = merged(maps if rule == "new_over_old" else maps[::-1])
            file = folder / of_case[0].file.name
            reader.write_seg(labels.astype(np.uint8), str(file), read[0][1])
            classes = [name for prediction in of_case for name in prediction.case.classes]
            found.append(Prediction(replace(of_case[0].case, classes=classes), file))
        return found

    def costs(self, models: Sequence[ModelFold], predictions: Sequence[Sequence[Prediction]]) -> dict[str, Any]:
        """Returns what one fold's networks cost together: their parameters, each training, and their predictions of a case."""
        checkpoints = [read_checkpoint(model.checkpoint, lazily=True) for model in models]
        records = [PredictedFrom.read(of_model[0].file.parent) for of_model in predictions]
        costs = {
            "fold": models[0].fold,
            "num_parameters": sum(map(num_parameters, checkpoints)),
            "training_seconds": [training_seconds(checkpoint["logging"]) for checkpoint in checkpoints],
            "prediction_seconds": sum(math.nan if record is None else record.seconds_per_case for record in records),
        }
        return dict(without_nan(costs))


def main() -> None:
    """Runs the command line."""
    args = study_parser(__doc__).parse_args()
    try:
        SeparateModels.of(study_of(args, [TRAINER])).run(args.cases)
    except CILError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
