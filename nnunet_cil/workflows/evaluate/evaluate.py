"""``nnunet_cil evaluate``: every step's model on the same cases, scored, as files that others can read."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import platform
import shlex
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from nnunet_cil import __version__
from nnunet_cil.evaluation.files import write_csv
from nnunet_cil.evaluation.significance import paired_tests
from nnunet_cil.evaluation.summary import latex, results, summary, without_nan
from nnunet_cil.files import files_sha256, write_json
from nnunet_cil.host.folders import nnunet_folder, num_processes
from nnunet_cil.training.catalogue import check_trainer_names
from nnunet_cil.workflows.evaluate.options import EvaluationOptions, evaluate_command
from nnunet_cil.workflows.evaluate.pictures import write_charts, write_overlays, write_report, write_training_curves
from nnunet_cil.workflows.evaluate.score import (
    Rows,
    Scored,
    passes_over_test_cases,
    score_model,
    sha256,
    test_set,
    test_sets,
)
from nnunet_cil.workflows.experiment import Experiment, check_continues, check_trained

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Evaluation:
    """What was found, and the files that hold it."""

    summary: str
    folder: Path


def evaluate(
    experiment: Experiment,
    options: EvaluationOptions,
    *,
    say: Callable[[str], None] = lambda _line: None,
) -> Evaluation:
    """Predicts and scores every step's model of every trainer and fold; what is there already is not done again.

    Args:
        experiment: the models; each fold's are scored on the same test cases, or on the fold's own validation cases.
        options: what to score and how, and where the results go.
        say: takes one line of progress at a time.

    Raises:
        CILError: a step is not trained, or on top of another model than is there; prediction and truth do not fit.
    """
    check_trainer_names(experiment.trainers)
    models = experiment.models()
    for model in models:
        for fold in experiment.folds:
            check_trained(model, fold)
    for trainer in experiment.trainers:
        for earlier, model in pairwise(experiment.models_of(trainer)):
            for fold in experiment.folds:
                check_continues(model, earlier, fold)
    cases = _cases(experiment, options)
    say("Scoring on the folds' validation cases" if cases == "validation" else f"Scoring on {cases}")
    output = output_folder(experiment, options)
    output.mkdir(parents=True, exist_ok=True)
    tests = {fold: test_sets(experiment, fold, options, output) for fold in experiment.folds}
    scored: dict[tuple[str, int, int | str], Scored] = {}
    todo = [(fold, model) for fold in experiment.folds for model in models]
    import scipy.ndimage  # once, before processes are forked that would each import them
    import scipy.spatial  # noqa: F401

    with ProcessPoolExecutor(num_processes()) as pool:
        for index, (fold, model) in enumerate(todo, start=1):
            say(f"[{index}/{len(todo)}] {model.trainer}, step {model.step}, fold {fold}")
            key = model.trainer, model.step, fold
            scored[key] = score_model(model, fold, tests[fold], output, options, pool)
            write_csv(output / "per_case.csv", {key: s.rows for key, s in scored.items()})
    say("Writing tables and figures...")
    last = {
        t: [r for f in experiment.folds for r in scored[t, experiment.last_step, f].rows] for t in experiment.trainers
    }
    content = {
        "schema_version": SCHEMA_VERSION,
        "dataset": ", ".join(experiment.data_sets),
        "configuration": experiment.configuration,
        "schedule": experiment.schedule.name,
        "steps": [list(step.classes) for step in experiment.schedule.steps],
        "cases": cases,
        "tolerance_mm": options.tolerance_mm,
        "checkpoints_sha256": {_key(*which): found.digest for which, found in scored.items()},
        "labels_sha256": _labels_sha256(experiment, options),
        "versions": versions(),
        "commands": [
            *experiment.train_commands(options.device),
            shlex.join(evaluate_command(experiment, options)),
        ],
        **_findings(experiment, scored, last),
    }
    (output / "report.html").unlink(missing_ok=True)  # written last: it stands for all of it
    write_json(output / "results.json", without_nan(content))
    text = summary(content)
    (output / "summary.md").write_text(text, encoding="utf-8")
    (output / "tables.tex").write_text(latex(content), encoding="utf-8")
    _write_pictures(experiment, output, content, last, scored)
    return Evaluation(text, output)


def _findings(
    experiment: Experiment, scored: Mapping[tuple[str, int, int | str], Scored], last: Mapping[str, Rows]
) -> dict[str, Any]:
    """What the scores amount to."""
    steps = [step.classes for step in experiment.schedule.steps]
    per_trainer = {
        t: {f: [scored[m.trainer, m.step, f].rows for m in experiment.models_of(t)] for f in experiment.folds}
        for t in experiment.trainers
    }
    tests = paired_tests(last, [c for classes in steps[:-1] for c in classes], steps[-1])
    return {"significance": [asdict(test) for test in tests], "trainers": results(per_trainer, steps)}


def evaluated(experiment: Experiment, options: EvaluationOptions) -> Evaluation | None:
    """What ``evaluate`` has found before, with the true labels and the models as they are now; None if it has not."""
    folder = output_folder(experiment, options)
    if not (folder / "report.html").is_file():  # written last
        return None
    known = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    models = {(m.trainer, m.step, f): m.fold(f) for f in experiment.folds for m in experiment.models()}
    files = {_key(*which): fold / "checkpoint_final.pth" for which, fold in models.items()}
    if known["cases"] != _cases(experiment, options) or not all(file.is_file() for file in files.values()):
        return None
    if known["checkpoints_sha256"] != {key: sha256(file) for key, file in files.items()}:
        return None
    if known.get("labels_sha256") != _labels_sha256(experiment, options):
        return None
    return Evaluation((folder / "summary.md").read_text(encoding="utf-8"), folder)


def output_folder(experiment: Experiment, options: EvaluationOptions) -> Path:
    """Returns where the results go: the folder asked for, or one in the data set's results.

    Scores on validation cases have a folder of their own where there are test cases, too.
    """
    if options.output is not None:
        return options.output
    name = f"{experiment.name}_validation" if passes_over_test_cases(experiment, options) else experiment.name
    return nnunet_folder("nnUNet_results") / experiment.dataset_name / "evaluation" / name


def _key(trainer: str, step: int, fold: int | str) -> str:
    return f"{trainer} step {step} fold {fold}"


def _cases(experiment: Experiment, options: EvaluationOptions) -> str:
    """Which ones are scored; of several data sets, each one's."""
    found = {name: test_set(name, options) for name in experiment.data_sets}
    if len(found) == 1:
        return next("validation" if test is None else str(test.labels) for test in found.values())
    return ", ".join(f"{name}: {'validation' if test is None else test.labels.name}" for name, test in found.items())


def _labels_sha256(experiment: Experiment, options: EvaluationOptions) -> str:
    """Of the true labels' files, those of all data sets."""
    files: list[Path] = []
    for name in experiment.data_sets:
        test = test_set(name, options)
        folder = nnunet_folder("nnUNet_preprocessed") / name / "gt_segmentations" if test is None else test.labels
        files += sorted(file for file in folder.iterdir() if file.is_file())
    return files_sha256(files)


def _write_pictures(
    experiment: Experiment,
    output: Path,
    content: Mapping[str, Any],
    last: Mapping[str, Rows],
    scored: Mapping[tuple[str, int, int | str], Scored],
) -> None:
    """``figures`` and ``report.html``; cases and training curves are those of the first fold."""
    fold = experiment.folds[0]
    models = {t: experiment.models_of(t) for t in experiment.trainers}
    finals = {t: own[-1] for t, own in models.items()}
    found = {t: scored[m.trainer, m.step, fold] for t, m in finals.items()}
    overlays = write_overlays(output, finals, found)
    write_report(
        output,
        content,
        charts=write_charts(output, content, last),
        overlays=overlays,
        training=write_training_curves(output, models, fold),
    )


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    names = ("nnunet-cil", "nnunetv2", "torch", "numpy", "scipy", "SimpleITK")
    found = {"Python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return {**found, "nnunet-cil": __version__}
