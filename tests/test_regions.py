"""Regions: their channels, their numbers, and what of them a step's targets show."""

from dataclasses import replace

import numpy as np
import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_cil.errors import CILError
from nnunet_cil.labels import all_numbers, class_names, has_regions, lookup_table, numbers_in
from nnunet_cil.regions import RegionLabels
from nnunet_cil.schedule import Schedule, Step
from nnunet_cil.step_plans import plan_steps, read_step_plan
from nnunet_cil.training.cascade_inputs import old_input_groups, old_inputs, shown_labels

BRATS = {"background": 0, "whole": (1, 2, 3), "core": (2, 3), "cyst": 5, "edge": 3, "rim": 4}
PAINTED = [1, 2, 5, 3, 4]


def planned(*steps, labels=BRATS, order=PAINTED, last=None):
    """Plans a schedule of one data set, or with ``last``, labels and order, of another one at the end; returns the last step."""
    names = [f"step {i}" for i in range(len(steps))]
    contents = [{"labels": labels, "regions_class_order": order}] * len(steps)
    if last is not None:
        contents[-1] = dict(zip(("labels", "regions_class_order"), last, strict=True))
    schedule = Schedule(name="s", steps=tuple(Step(classes=tuple(s)) for s in steps))
    return plan_steps(schedule, names, contents, names, [None] * len(steps))[-1]


ORDERS = [
    ([["whole"], ["core"]], ("whole", "core"), (1, 2), (0, 1)),
    ([["core"], ["whole"]], ("whole", "core"), (1, 2), (1, 0)),
    ([["edge"], ["core", "cyst"], ["whole"]], ("whole", "core", "cyst", "edge"), (1, 2, 5, 3), (1, 2, 3, 0)),
    ([["rim"]], ("rim",), (4,), (0,)),
]


@pytest.mark.parametrize(("steps", "classes", "painted", "order"), ORDERS)
@pytest.mark.parametrize("ignore", [False, True])
def test_channels_follow_the_data_sets_order_whatever_that_of_learning(steps, classes, painted, order, ignore):
    step = planned(*steps, labels=BRATS | ({"ignore": 6} if ignore else {}))
    assert step.has_regions
    assert step.model_classes == classes == class_names(step.labels)
    assert (step.regions_class_order, step.channel_order) == (painted, order)
    assert [step.model_classes[c] for c in step.old_channels] == list(step.teacher_classes)
    assert step.num_channels == len(classes)
    manager = LabelManager(dict(step.labels), list(step.regions_class_order))  # checks the ignore label, too
    assert manager.has_regions
    assert manager.num_segmentation_heads == len(classes)
    assert has_regions(step.labels)
    plans = {"plans_name": "p", "cil": step.to_json()}
    assert read_step_plan(plans, {"labels": step.dataset_labels}) == step


@pytest.mark.parametrize("steps", [["whole", "core", "edge"], ["edge", "core", "whole"], ["core", "whole"]])
def test_a_prediction_carries_the_data_sets_numbers_of_the_seen_regions(steps):
    """Painted by plain nnU-Net from perfect probabilities, every region can be read back by the data set's numbers."""
    truth = np.arange(6).repeat(3)
    step = planned(*([name] for name in steps))
    probs = np.stack([np.isin(truth, numbers_in(BRATS[name])) for name in step.model_classes]).astype(np.float32)
    manager = LabelManager(dict(step.labels), list(step.regions_class_order))
    found = manager.convert_probabilities_to_segmentation(probs)
    for name in steps:
        assert np.array_equal(np.isin(found, numbers_in(BRATS[name])), np.isin(truth, numbers_in(BRATS[name])))
        assert np.array_equal(np.isin(found, step.labels[name]), np.isin(truth, numbers_in(BRATS[name])))
    assert step.is_numbered_as_the_data_set


def test_a_target_shows_the_steps_regions_only():
    """A hidden label inside of a shown region is that region and nothing else; one in no shown region is nothing."""
    step = planned(["core"], ["whole", "cyst"], labels=BRATS | {"ignore": 6})
    table = lookup_table(step.target_labels(step.target_classes), all_numbers(step.dataset_labels))
    assert table[np.arange(-1, 7) + 1].tolist() == [-1, 0, 2, 2, 2, 0, 4, 8]
    assert step.positions == {"core": 0, "whole": 1, "cyst": 2}
    assert (step.ignore_label, step.region_bits) == (8, (1, 0, 2, 3))
    refining = replace(step, refined=("core",))
    assert refining.target_labels(refining.target_classes) == {1: 2, 2: 3, 3: 3, 5: 4, 6: 8}


def test_regions_of_another_data_set_get_numbers_of_their_own():
    """Adds to the references what that data set knows of old regions, so that they can be compared."""
    last = {"background": 0, "liver": (1, 2), "tumour": 2, "ignore": 3}, [1, 2]
    step = planned(["whole"], ["tumour"], labels={"background": 0, "whole": (1, 2)}, order=[1], last=last)
    assert step.labels == {"background": 0, "whole": (1, 2), "tumour": (4, 4), "ignore": 5}
    assert (step.regions_class_order, step.label_offset) == ((1, 4), 2)
    assert step.evaluation_label_map == {2: 4, 3: 5}
    assert not step.is_numbered_as_the_data_set
    again = planned(["liver"], ["tumour"], labels={"background": 0, "liver": (1, 2, 3)}, order=[1], last=last)
    assert again.labels == {"background": 0, "liver": (1, 2, 3, 4, 5), "tumour": (5, 5), "ignore": 6}
    assert again.evaluation_label_map == {1: 4, 2: 5, 3: 6}


def test_a_cascades_teacher_has_no_inputs_for_the_numbers_that_another_data_set_gives_its_regions():
    last = {"background": 0, "whole": (1, 2, 3), "core": (2, 3)}, [1, 2]
    step = planned(["whole"], ["core"], labels={"background": 0, "whole": (1, 2)}, order=[1], last=last)
    assert step.labels == {"background": 0, "whole": (1, 2, 3, 4, 5), "core": (4, 5)}
    assert (shown_labels(step), old_inputs(step)) == ([1, 2, 3, 4, 5], [0, 1])
    assert old_input_groups(step) == [[0, 3], [1]]  # where the core is painted, the whole was


def test_plain_labels_beside_regions_of_another_data_set_are_regions_of_one_number():
    first, last = {"background": 0, "b": 1, "a": 2}, ({"background": 0, "c": (1, 2)}, [1])
    step = planned(["a", "b"], ["c"], labels=first, order=(), last=last)
    assert step.labels == {"background": 0, "b": (1, 1), "a": (2, 2), "c": (3, 4)}
    assert step.regions_class_order == (1, 2, 3)


def test_a_new_region_that_the_data_set_paints_before_an_old_one_does_not_cover_it():
    old = RegionLabels(numbers={"core": (1,)}, painted={"core": 1})
    dataset = RegionLabels.of({"background": 0, "whole": (1, 2), "core": 2}, [1, 2])
    assert list(old.joined(dataset, ["whole"]).numbers) == ["whole", "core"]
    assert old.joined(dataset, ["whole"]).numbers == {"whole": (2, 3, 1), "core": (1, 3)}


def test_a_whole_that_is_learnt_after_its_core_from_another_data_set_can_be_read_back_from_predictions():
    """The core keeps its number, which then is in the whole, too; that of a region beside it is not."""
    first = {"background": 0, "core": 1, "cyst": 2}
    last = {"background": 0, "cyst": 4, "rim": 1, "whole": (1, 2, 3), "core": (2, 3), "edge": 3}, [4, 1, 1, 2, 3]
    step = planned(["core", "cyst"], ["whole", "edge"], labels=first, order=(), last=last)
    truth = np.arange(5)
    masks = {name: np.isin(truth, numbers_in(last[0][name])) for name in step.model_classes}
    probs = np.stack([masks[name] for name in step.model_classes]).astype(np.float32)
    manager = LabelManager(dict(step.labels), list(step.regions_class_order))
    found = manager.convert_probabilities_to_segmentation(probs)
    references = np.array([step.evaluation_label_map.get(n, 0) for n in truth])
    for name in step.model_classes:
        assert np.array_equal(np.isin(found, step.labels[name]), masks[name]), name
        assert np.array_equal(np.isin(references, step.labels[name]), masks[name]), name


def test_more_regions_than_a_voxel_can_hold_are_refused():
    labels = {"background": 0, **{f"r{i}": (1, i) for i in range(2, 17)}}
    names = [name for name in labels if name != "background"]
    assert planned(names[:-1], labels=labels, order=[1] * 15).num_channels == 14
    with pytest.raises(
        CILError, match=r"at most 14 regions, but with this step the model has 15: r2, r3, .*Leave some out"
    ):
        planned(names[:-1], names[-1:], labels=labels, order=[1] * 15)
