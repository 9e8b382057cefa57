"""Labels that are not what they were preprocessed as."""

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from toy import DATASET

from nnunet_cil.errors import CILError
from nnunet_cil.host.label_record import LabelRecord
from nnunet_cil.workflows.plan.label_checks import refuse_old_labels


@pytest.mark.parametrize("recorded", [True, False])
def test_labels_that_were_replaced_with_nnunets_copy_of_them_are_noticed_where_it_is_recorded(toy, recorded):
    """Without a record, nothing tells what nnU-Net has preprocessed by itself."""
    labels = toy.parents[1] / "raw" / DATASET / "labelsTr"
    files = {file.name.removesuffix(".nii.gz"): file for file in labels.iterdir()}
    cases = {case: {"label": str(file)} for case, file in files.items()}
    raw = SimpleNamespace(folder=labels.parent, cases=cases, dataset_json={"file_ending": ".nii.gz"})
    folder = toy / "nnUNetPlans_3d_fullres"
    if recorded:
        LabelRecord.begin(folder, files)
        LabelRecord.finish(folder, files)
    refuse_old_labels(folder, raw)
    for file in files["case_2"], toy / "gt_segmentations/case_2.nii.gz":
        shutil.copyfile(files["case_3"], file)
    if not recorded:
        refuse_old_labels(folder, raw)
        return
    message = r"The label file of case 'case_2' has changed since .* Remove that folder, (\S+) and (\S+), and run"
    with pytest.raises(CILError, match=message) as error:
        refuse_old_labels(folder, raw)
    kept = shutil.copytree(folder, toy / "kept")
    shutil.rmtree(folder)  # as it says; then nnU-Net preprocesses again
    for file in re.search(message, str(error.value)).groups():
        Path(file).unlink()
    refuse_old_labels(folder, raw)
    kept.rename(folder)  # with the same cases, where the new files hold the same labels
    shutil.copyfile(files["case_2"], toy / "gt_segmentations/case_2.nii.gz")
    refuse_old_labels(folder, raw)
