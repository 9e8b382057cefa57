"""Reference labels of nnU-Net's final validation: numbered as the model's channels, with scores of labelled classes only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.evaluation.evaluate_predictions import load_summary_json, save_summary_json

from nnunet_cil.errors import CILError
from nnunet_cil.host.reading.readers import silent
from nnunet_cil.host.reading.spacings import has_spacing_beside
from nnunet_cil.labels import Label, all_numbers, lookup_table
from nnunet_cil.step_plans import StepPlan


def evaluation_table(step: StepPlan) -> npt.NDArray[np.int16]:
    """Returns the table from the data set's numbers to the model's, for what a prediction is compared with."""
    return lookup_table(step.evaluation_label_map, all_numbers(step.dataset_labels))


def write_in_channels(
    files: Iterable[Path],
    target: Path,
    table: npt.NDArray[np.int16],
    reader_writer: Any,
    preprocessed: Path | None = None,
    allowed: Collection[int] | None = None,
) -> None:
    """Writes reference labels with the model's numbers.

    Args:
        files: of reference labels.
        target: the folder to write; files get the same names.
        table: from ``labels.lookup_table``, as ``evaluation_table``.
        reader_writer: an instance of nnU-Net's.
        preprocessed: the folder of a configuration, which knows the spacing of files that do not say it themselves.
        allowed: every number that a file may hold; None where nnU-Net has checked it.

    Raises:
        CILError: a file holds another number.
    """
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        with silent():  # nnU-Net copies no file of a TIFF's spacing to gt_segmentations, and its reader warns of each
            labels, properties = reader_writer.read_seg(str(file))
        if has_spacing_beside(reader_writer) and preprocessed is not None:
            case = preprocessed / f"{file.stem}.pkl"
            properties["spacing"] = [float(s) for s in load_pickle(str(case))["spacing"]]
        numbers = labels[0].astype(np.int64)
        if allowed is not None and (strange := sorted(set(np.unique(numbers).tolist()) - {0, *allowed})):
            raise CILError(f"{file} holds the label {strange[0]}, which is none of {sorted(allowed)}. Correct it.")
        reader_writer.write_seg(table[numbers + 1], str(target / file.name), properties)


def drop_unlabelled_scores(summary: Path, step: StepPlan, file_ending: str) -> float | None:
    """Drops from nnU-Net's summary the scores of classes that the labels do not show.

    Args:
        summary: ``summary.json``, written anew.
        step: the step that was validated.
        file_ending: of the cases.

    Returns:
        The mean Dice over the remaining classes, NaN if there is none; None where all labels show all seen classes.
    """
    if not step.labelled and step.evaluated_classes == step.seen_classes:
        return None

    def labelled(case: str) -> list[Label]:
        return [step.labels[name] for name in step.labelled.get(case, step.evaluated_classes)]

    return _drop_scores(summary, labelled, file_ending)


def _drop_scores(summary: Path, labelled: Callable[[str], Collection[Label]], file_ending: str) -> float:
    """Drops from nnU-Net's summary, and from its means, the scores of classes that a case's labels do not show.

    Args:
        summary: ``summary.json``, written anew.
        labelled: case -> the model's labels that its labels show.
        file_ending: of the cases.

    Returns:
        The mean Dice over the remaining classes; NaN if there is none.
    """
    content = load_summary_json(str(summary))
    for case in content["metric_per_case"]:
        labels = labelled(Path(case["prediction_file"]).name.removesuffix(file_ending))
        case["metrics"] = {label: scores for label, scores in case["metrics"].items() if label in labels}
    per_case = [case["metrics"] for case in content["metric_per_case"]]
    labels = {label: None for metrics in per_case for label in metrics}
    content["mean"] = {label: _means([m[label] for m in per_case if label in m]) for label in labels}
    content["foreground_mean"] = _means(list(content["mean"].values()))
    save_summary_json(content, str(summary))
    return float(content["foreground_mean"].get("Dice", np.nan))


def _means(scores: list[dict[str, float]]) -> dict[str, float]:
    """Returns the mean of each metric over the cases where it is defined; NaN where it is defined in none."""
    values = {name: [s[name] for s in scores if not np.isnan(s[name])] for name in (scores[0] if scores else ())}
    return {name: float(np.mean(v)) if v else float("nan") for name, v in values.items()}
