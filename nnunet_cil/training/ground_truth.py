"""Ground truth for nnU-Net's final validation: the model's label numbers, and just the classes that are labelled."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.evaluation.evaluate_predictions import load_summary_json, save_summary_json

from nnunet_cil.labels import lookup_table
from nnunet_cil.step_plans import StepPlan


def write_in_channels(source: Path, target: Path, files: Iterable[str], step: StepPlan, reader_writer: Any) -> None:
    """Writes ``gt_segmentations`` with the model's numbers, and the split, where nnU-Net will look for them.

    Args:
        source: nnU-Net's preprocessed folder of the data set.
        target: takes the same names.
        files: of ``gt_segmentations``.
        step: whose classes and numbers.
        reader_writer: nnU-Net's, an instance.
    """
    table = lookup_table(step.evaluation_label_map, step.dataset_labels.values())
    (target / "gt_segmentations").mkdir(parents=True, exist_ok=True)
    if (source / "splits_final.json").is_file():
        shutil.copyfile(source / "splits_final.json", target / "splits_final.json")
    for name in files:
        labels, properties = reader_writer.read_seg(str(source / "gt_segmentations" / name))
        mapped = table[labels[0].astype(np.int64) + 1]
        reader_writer.write_seg(mapped, str(target / "gt_segmentations" / name), properties)


def keep_what_is_labelled(summary: Path, step: StepPlan, file_ending: str) -> float | None:
    """Takes the scores of classes against labels that do not show them out of nnU-Net's summary.

    Returns:
        The mean Dice over the classes that are left, NaN if there is none; None where every label shows every seen class.
    """
    if not step.labelled and step.evaluated_classes == step.seen_classes:
        return None

    def labelled(case: str) -> list[int]:
        return [step.labels[name] for name in step.labelled.get(case, step.evaluated_classes)]

    return keep_labelled(summary, labelled, file_ending)


def keep_labelled(summary: Path, labelled: Callable[[str], Collection[int]], file_ending: str) -> float:
    """Takes the scores of classes that a case's labels do not show out of nnU-Net's summary, and out of its means.

    Args:
        summary: ``summary.json``, written anew.
        labelled: case -> the model's labels that its labels show.
        file_ending: of the cases.

    Returns:
        The mean Dice over the classes that are left; NaN if there is none.
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
    """Of each metric; NaN where none is defined."""
    values = {name: [s[name] for s in scores if not np.isnan(s[name])] for name in (scores[0] if scores else ())}
    return {name: float(np.mean(v)) if v else float("nan") for name, v in values.items()}
