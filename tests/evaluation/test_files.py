"""Scores of files."""

from toy import LABELS, toy_volume
from toy_models import write


def test_ignored_voxels_count_nowhere(tmp_path):
    from nnunet_cil.evaluation.files import score_files

    labels = toy_volume(0)[1]
    truth = labels.copy()
    truth[:, :, :7] = 9
    write(truth, tmp_path / "truth.nii.gz")
    broken = labels.copy()
    broken[:, :, :7] = 2
    write(broken, tmp_path / "found.nii.gz")
    scores = score_files(
        tmp_path / "found.nii.gz",
        tmp_path / "truth.nii.gz",
        classes={o: (n, n) for o, n in LABELS.items() if n},
        prediction_labels=frozenset(LABELS.values()),
        reference_labels=frozenset([*LABELS.values(), 9]),
        ignore_label=9,
        tolerance_mm=1,
    )
    assert {s.dice for s in scores.values() if s.num_voxels_wanted} == {1}
