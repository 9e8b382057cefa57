"""``nnunet_cil evaluate``: every step's model on the same cases, scored, as files that others can read."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.differences import differences_to_best, evaluated_differences
from nnunet_cil.evaluation.results import ranked, results, without_nan
from nnunet_cil.evaluation.scores import by_trainer, distance_unit, score_table, write_csv
from nnunet_cil.evaluation.summary import latex, summary
from nnunet_cil.files import read_json, write_json, write_text
from nnunet_cil.host.folders import nnunet_folder, num_processes
from nnunet_cil.host.processes import end_with_parent
from nnunet_cil.locks import Lock, refuse_if_held
from nnunet_cil.training.catalogue import check_trainer_names
from nnunet_cil.workflows.evaluate.cases import (
    check_predicted,
    check_test_cases,
    describe_cases,
    passes_over_test_cases,
    references_sha256,
    test_case_names,
    test_sets,
    validation_data_sets,
)
from nnunet_cil.workflows.evaluate.cases_to_score import check_test_files
from nnunet_cil.workflows.evaluate.costs import costs
from nnunet_cil.workflows.evaluate.options import EvaluationOptions, evaluate_command
from nnunet_cil.workflows.evaluate.pictures import write_charts, write_overlays, write_report, write_training_curves
from nnunet_cil.workflows.evaluate.predict import Prediction, are_predicted, expected_predictions, predictions_of
from nnunet_cil.workflows.evaluate.score import is_scored, score
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.fold_records import check_validation_cases, current_cases, note_trained_test_cases
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.stages import check_stages
from nnunet_cil.workflows.versions import versions

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA_VERSION = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The summary of an evaluation, and the folder of its files."""

    summary: str
    folder: Path


def evaluate(experiment: Experiment, options: EvaluationOptions, *, waits: bool = False) -> Evaluation:
    """Predicts and scores every step's model of every trainer and fold; what is there already is not done again.

    Args:
        experiment: the models; each fold's are scored on the same test cases, or on the fold's own validation cases.
        options: what to score and how, and where the results go.
        waits: for another process that writes to the same folder; it is refused otherwise.

    Raises:
        CILError: a step is not trained, on top of another model than is there, or on validation cases that would be scored; a
            prediction and its reference do not match.
    """
    check_trainer_names(experiment.trainers)
    check_test_cases(experiment, options)
    planned = PlannedExperiment.read(experiment)
    for remark in planned.remarks:
        logger.info(remark)
    for earlier, later in planned.successions():
        later.check_origin(earlier)
    for model in planned.model_folds():
        refuse_if_held(model.lock)
        if not model.is_trained:
            current_cases(model.model.dataset, model.fold)  # no training can make a fold that the split does not have
        model.check_trained(options.device)
        model.check_planned()
    for earlier, later in planned.successions():
        later.check_continues(earlier)
    check_stages(planned, options.device)
    remarks = check_validation_cases(planned.model_folds(), validation_data_sets(experiment, options))
    remarks += note_trained_test_cases(planned.model_folds(), test_case_names(experiment, options))
    remarks += check_predicted(planned, options)
    check_test_files(experiment, options, planned.reader_names)
    cases = describe_cases(experiment, options)
    logger.info("Scoring on the folds' validation cases" if cases == "validation" else f"Scoring on {cases}")
    for remark in remarks:
        logger.info(remark)
    output = output_folder(experiment, options)
    lock = Lock(output / ".in_use.json", str(output))
    with lock.held_in_turn(logger.info) if waits else lock.held():
        return _evaluate(planned, options, output)


def _evaluate(planned: PlannedExperiment, options: EvaluationOptions, output: Path) -> Evaluation:
    experiment = planned.experiment
    digests = {model: model.checkpoint_sha256() for model in planned.model_folds()}
    predictions, table = _predict_and_score(planned, digests, options, output)
    logger.info("Writing tables and figures...")
    table = by_trainer(table, {t: [m.trainer for m in planned.models_of(t)] for t in experiment.trainers})
    content = {**_content(planned, options, table, digests), "costs": costs(planned, predictions)}
    if content["distance_unit"] == "voxels":
        logger.info("Note: the files do not say how large a voxel is. Distances and the tolerance are in voxels.")
    text = _write_tables(output, content)
    _write_pictures(planned, output, content, table, predictions)
    return Evaluation(summary=text, folder=output)


def _predict_and_score(
    planned: PlannedExperiment, digests: Mapping[ModelFold, str], options: EvaluationOptions, output: Path
) -> tuple[dict[ModelFold, list[Prediction]], DataFrame]:
    """Returns the predictions of every model, and their scores; these are also in ``per_case.csv``, so far as they are there.

    Args:
        planned: whose models.
        digests: SHA-256 of each model's checkpoint.
        options: what to score and how.
        output: takes predictions and scores.
    """
    import pandas
    import scipy.ndimage  # once, before processes are forked that would each import them
    import scipy.spatial  # noqa: F401

    tests = {fold: test_sets(planned, fold, options, output) for fold in planned.experiment.folds}
    predictions: dict[ModelFold, list[Prediction]] = {}
    table = score_table([])
    notes: set[str] = set()
    with ProcessPoolExecutor(num_processes(), initializer=end_with_parent, initargs=(os.getpid(),)) as pool:
        for index, (model, digest) in enumerate(digests.items(), start=1):
            logger.info(f"[{index}/{len(digests)}] {model.trainer}, step {model.step}, fold {model.fold}")
            predictions[model] = predictions_of(
                model,
                tests[model.fold],
                output,
                checkpoint_sha256=digest,
                device=options.device,
                before=planned.before_in_fold(model),
            )
            scores = score(
                model,
                predictions[model],
                output,
                checkpoint_sha256=digest,
                tolerance_mm=options.tolerance_mm,
                pool=pool,
            )
            for note in scores.notes:
                if note not in notes:
                    logger.info(f"Note: {note}")
            notes.update(scores.notes)
            table = scores.table if table.empty else pandas.concat([table, scores.table], ignore_index=True)
            write_csv(output / "per_case.csv", table)
    return predictions, table


def _content(
    planned: PlannedExperiment, options: EvaluationOptions, table: DataFrame, digests: Mapping[ModelFold, str]
) -> dict[str, Any]:
    """Returns the content of ``results.json``, with NaN."""
    experiment = planned.experiment
    steps = [step.classes for step in experiment.schedule.steps]
    scored = results(table, steps)
    compared = evaluated_differences(table, steps)
    best = ranked(scored)[0]
    return {
        "schema_version": SCHEMA_VERSION,
        "dataset": ", ".join(experiment.data_sets),
        "configuration": experiment.configuration,
        "schedule": experiment.schedule.name,
        "steps": [list(classes) for classes in steps],
        "cases": describe_cases(experiment, options),
        "tolerance_mm": options.tolerance_mm,
        "distance_unit": distance_unit(dict(zip(table["case"], table["unit"], strict=True))),
        "checkpoints_sha256": {_key(model): digest for model, digest in digests.items()},
        "labels_sha256": references_sha256(experiment, options),
        "versions": versions(),
        "commands": [
            *planned.train_commands(options.device),
            shlex.join(evaluate_command(experiment, options)),
        ],
        "differences": [asdict(difference) for difference in compared],
        "best": best,
        "differences_to_best": [asdict(d) for d in differences_to_best(table, steps, best, compared)],
        "trainers": scored,
    }


def _write_tables(output: Path, content: Mapping[str, Any]) -> str:
    """Writes ``results.json``, ``summary.md`` and ``tables.tex``; returns the summary.

    The report of an earlier evaluation goes: it is written last, and stands for all of it.
    """
    (output / "report.html").unlink(missing_ok=True)
    write_json(output / "results.json", without_nan(content))
    text = summary(content)
    write_text(output / "summary.md", text)
    write_text(output / "tables.tex", latex(content))
    return text


def _write_pictures(
    planned: PlannedExperiment,
    output: Path,
    content: Mapping[str, Any],
    table: DataFrame,
    predictions: Mapping[ModelFold, Sequence[Prediction]],
) -> None:
    """Writes ``figures`` and ``report.html``; cases and training curves are those of the first fold."""
    fold = planned.experiment.folds[0]
    models = {t: [model.fold(fold) for model in planned.models_of(t)] for t in ranked(content["trainers"])}
    trainings = {t: {f"step {m.step}": m for m in own} for t, own in models.items()}
    overlays = write_overlays(output, {t: (own[-1], predictions[own[-1]]) for t, own in models.items()}, table)
    write_report(
        output,
        content,
        charts=write_charts(output, content, table),
        overlays=overlays,
        training=write_training_curves(output, trainings, f", fold {fold}"),
    )


def evaluated(experiment: Experiment, options: EvaluationOptions) -> Evaluation | None:
    """Returns what ``evaluate`` has found before; None if it has not, or with other options, models or files than are there."""
    folder = output_folder(experiment, options)
    if not (folder / "report.html").is_file() or not (folder / "summary.md").is_file():  # the report is written last
        return None
    try:
        known = read_json(folder / "results.json", "")
    except CILError:  # none, or a damaged one
        return None
    planned = PlannedExperiment.read(experiment)
    models = planned.model_folds()
    if known.get("steps") != [list(step.classes) for step in experiment.schedule.steps]:
        return None
    if list(known.get("trainers", {})) != list(experiment.trainers):  # the first is compared with the others
        return None
    if known.get("tolerance_mm") != options.tolerance_mm:
        return None
    if known.get("cases") != describe_cases(experiment, options) or not all(m.checkpoint.is_file() for m in models):
        return None
    digests = {model: model.checkpoint_sha256() for model in models}
    if known.get("checkpoints_sha256") != {_key(model): digest for model, digest in digests.items()}:
        return None
    if known.get("labels_sha256") != references_sha256(experiment, options):
        return None
    if not all(_is_scored(model, planned, options, digest) for model, digest in digests.items()):
        return None
    return Evaluation(summary=(folder / "summary.md").read_text(encoding="utf-8"), folder=folder)


def _is_scored(model: ModelFold, planned: PlannedExperiment, options: EvaluationOptions, digest: str) -> bool:
    """Tells whether the stored scores of a model are those of the predictions and references that are there."""
    output = output_folder(planned.experiment, options)
    tests = test_sets(planned, model.fold, options, output)
    before = planned.before_in_fold(model)
    if before is not None and not before.is_trained:
        return False
    if not are_predicted(model, tests, output, checkpoint_sha256=digest, before=before):
        return False
    predictions = expected_predictions(model, tests, output)
    return is_scored(model, predictions, output, checkpoint_sha256=digest, tolerance_mm=options.tolerance_mm)


def output_folder(experiment: Experiment, options: EvaluationOptions) -> Path:
    """Returns where the results go: the folder asked for, or one in the data set's results.

    Scores on validation cases have a folder of their own where there are test cases, too.
    """
    if options.output is not None:
        return options.output
    name = f"{experiment.name}_validation" if passes_over_test_cases(experiment, options) else experiment.name
    return nnunet_folder("nnUNet_results") / experiment.dataset_name / "evaluation" / name


def _key(model: ModelFold) -> str:
    """Returns a model's name in ``results.json``."""
    return f"{model.trainer} step {model.step} fold {model.fold}"
