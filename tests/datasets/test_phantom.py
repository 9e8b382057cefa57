"""The phantom: generated volumes that look like organs."""

import numpy as np
import SimpleITK as sitk

from nnunet_cil.datasets.phantom import LABELS, SHAPE, SPACING_MM, make_volume, write_dataset


def test_phantoms_have_every_organ_differ_and_repeat():
    volumes = [make_volume(seed) for seed in range(6)]
    for image, labels in volumes:
        assert image.shape == labels.shape == SHAPE
        assert set(np.unique(labels)) == set(LABELS.values())
        assert all((labels == number).sum() > 100 for number in LABELS.values())
    assert not np.array_equal(volumes[0][1], volumes[1][1])
    assert np.array_equal(make_volume(0)[0], volumes[0][0])
    left, right = LABELS["left kidney"], LABELS["right kidney"]
    assert np.argwhere(volumes[0][1] == left)[:, 2].mean() > np.argwhere(volumes[0][1] == right)[:, 2].mean()


def test_phantom_data_set_is_raw_nnunet(tmp_path):
    write_dataset(tmp_path, num_training=2, num_test=1)
    picture = sitk.ReadImage(str(tmp_path / "imagesTr/phantom_0001_0000.nii.gz"))
    assert picture.GetSpacing() == SPACING_MM
    assert len(list((tmp_path / "labelsTs").iterdir())) == 1
