"""The grids of test cases: looked at before anything is trained or predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunet_cil.files import read_json
from nnunet_cil.host.case_files import image_cases
from nnunet_cil.host.case_grids import CaseFiles, check_grids
from nnunet_cil.host.dataset_json import preprocessed_or_raw
from nnunet_cil.host.folders import nnunet_folder
from nnunet_cil.host.plans_files import reader_of
from nnunet_cil.host.readers import dataset_reader
from nnunet_cil.workflows.evaluate.cases import TestSet, test_set
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan.sequence_of_datasets import plans_on


def check_test_grids(experiment: Experiment, options: EvaluationOptions) -> list[str]:
    """Refuses test cases that cannot be predicted or scored; those without labels are left to others.

    Returns:
        Notes on what is taken as it is.

    Raises:
        CILError: names the case, and what to correct.
    """
    notes = []
    for name in experiment.data_sets:
        test = test_set(name, options)
        content = {} if test is None else preprocessed_or_raw(name)
        cases = {} if test is None else _cases(test, content["file_ending"])
        if cases:
            reader = dataset_reader(content, next(iter(cases.values())).images[0], _plans_reader(experiment, name))
            notes += check_grids(cases, reader, len(content["channel_names"]))
    return list(dict.fromkeys(notes))


def _cases(test: TestSet, ending: str) -> dict[str, CaseFiles]:
    """Returns the cases that have images and labels."""
    images: dict[str, list[Path]] = {case: [] for case in image_cases(test.images, ending)}
    for file in sorted(test.images.glob(f"*{ending}")):
        images[file.name[: -len("_0000") - len(ending)]].append(file)
    labels = {case: test.labels / f"{case}{ending}" for case in images}
    return {c: CaseFiles(images=files, labels=[labels[c]]) for c, files in images.items() if labels[c].is_file()}


def _plans_reader(experiment: Experiment, dataset: str) -> str:
    """Returns the name of the reader in the plans on a data set; empty where there are none yet."""
    name = plans_on(dataset, experiment.dataset_name, experiment.base_plans)
    file = nnunet_folder("nnUNet_preprocessed") / dataset / f"{name}.json"
    plans: dict[str, Any] = read_json(file, "") if file.is_file() else {}
    return reader_of(plans)
