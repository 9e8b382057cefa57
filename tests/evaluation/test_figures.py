"""Tables and pictures, and the phantom they are shown on."""

import math

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cil.datasets.phantom import LABELS, SHAPE, SPACING_MM, make_volume, write_dataset
from nnunet_cil.evaluation.charts import _lost, class_dots, curves
from nnunet_cil.evaluation.figures import busiest_slices, comparison, read_slices
from nnunet_cil.evaluation.results import mean_matrix
from nnunet_cil.evaluation.scores import METRICS
from nnunet_cil.evaluation.summary import overview
from nnunet_cil.evaluation.tables import SCHEDULE_NUMBERS, group_means, step_table

STEPS = [["a", "b"], ["c"]]


def test_groups_by_hand():
    old, new, everything = group_means({"a": 0.2, "b": 0.4, "c": 0.9}, ["a", "b"], ["c"])
    assert (old, new, everything) == pytest.approx((0.3, 0.9, 0.5))
    assert math.isnan(group_means({"a": 0.2}, [], ["a"])[0])


def test_table_is_blank_where_a_class_is_not_learnt_yet():
    rows = {"PGCD": [{"a": 0.5, "b": 0.7}, {"a": 0.4, "b": 0.6, "c": 0.8}]}
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in step_table(rows, STEPS).markdown().splitlines()
    ]
    assert lines[0] == ["step", "method", "a", "b", "c", "old", "new", "all"]
    assert lines[2] == ["0", "PGCD", "0.500", "0.700", "", "", "0.600", "0.600"]
    assert lines[3] == ["1", "PGCD", "0.400", "0.600", "0.800", "0.500", "0.800", "0.600"]


def test_a_class_that_one_fold_lacks_is_the_mean_of_the_others():
    nan = math.nan
    folds = [
        {"classes": [{"a": 0.8, "b": nan}], "matrix": [[0.8]], "old": [nan], "new": [0.8], "all": [0.8]},
        {"classes": [{"a": 0.6, "b": 0.4}], "matrix": [[0.5]], "old": [nan], "new": [0.5], "all": [0.5]},
    ]
    folds = [{**f, **dict.fromkeys(SCHEDULE_NUMBERS, nan)} for f in folds]
    content = {"steps": [["a", "b"]], "cases": "validation", "tolerance_mm": 2, "significance": []}
    content["trainers"] = {"PGCD": dict.fromkeys(METRICS, folds) | {"dice": folds}}
    for fold in folds:
        fold["missing"] = [{"a": 0, "b": 0}]
    steps, schedule, *_ = overview(content)
    assert steps.table.body[0][2:] == ["0.700", "0.400", "", "0.650", "0.650"]
    assert schedule.table.body[0][1:4] == ["", "0.650 (0.500 to 0.800)", "0.650 (0.500 to 0.800)"]
    assert np.array_equal(mean_matrix(folds), [[0.65]])
    lost = [[{"a": nan}, {"a": 0.5}, {"a": 0.25}], [{"a": 0.5}, {"a": nan}, {"a": 0.5}]]
    assert [_lost(per_step, "a") for per_step in lost] == [0.25, 0]
    for chart in (curves, class_dots):
        assert chart({**content, "steps": [["a", "b"]]}).axes


def test_busiest_slices_show_most_classes_and_lie_apart():
    labels = np.zeros((20, 4, 4), dtype=int)
    labels[5, 0, :3] = 1, 2, 3
    labels[6, 0, :2] = 1, 2
    labels[15, 0, 0] = 1
    assert busiest_slices(labels, 2) == [5, 15]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_comparison_is_drawn(tmp_path, ending):
    image, labels = make_volume(0)
    file = tmp_path / f"c.{ending}"
    figure = comparison(image, {"truth": labels, "other": np.zeros_like(labels)}, list(LABELS)[1:], title="t")
    assert [a.get_title() for a in figure.axes[:3]] == ["image", "truth", "other"]
    figure.savefig(file)
    assert file.stat().st_size > 5000


def test_a_picture_in_colours_is_read_as_grey(tmp_path):
    colours = sitk.GetImageFromArray(np.full((6, 5, 3), 9, np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "image.png"))
    assert read_slices(tmp_path / "image.png")[0].shape == (1, 6, 5)


def test_a_picture_is_cut_to_the_labels_and_a_margin():
    labels = np.zeros((4, 60, 80), dtype=int)
    labels[2, 30:40, 50:70] = 1
    figure = comparison(np.zeros(labels.shape), {"truth": labels}, ["a"], num_slices=1)
    assert figure.axes[0].images[0].get_array().shape == (10 + 2 * 4, 20 + 7 + 7)
    empty = comparison(np.zeros(labels.shape), {"truth": 0 * labels}, ["a"], num_slices=1)
    assert empty.axes[0].images[0].get_array().shape == (60, 80)


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
