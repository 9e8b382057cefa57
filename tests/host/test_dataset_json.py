"""nnU-Net's dataset.json: what it means in every form that nnU-Net takes, and what is refused."""

import json
import math
import re

import pytest
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from nnunet_cil.errors import CILError
from nnunet_cil.host.dataset_json import checked_dataset_json, checked_labels, read_dataset_json

GOOD = {"channel_names": {"0": "T2"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nrrd"}


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "liver": 2, "spleen": 1},
        {"background": "0", "liver": "2", "spleen": "1"},
        {"background": 0.0, "liver": 2.0, "spleen": 1.0},
        {"background": 0, "liver": [2], "spleen": [1]},
        {"background": 0, "liver": ["2"], "spleen": [1.0]},
        {"background": "00", "liver": " 2 ", "spleen": "+1"},
        {"liver": 2, "spleen": "1", "background": -0.0},
    ],
)
def test_numbers_mean_what_they_mean_to_nnunet(labels):
    checked = checked_labels(labels, "dataset.json")
    assert checked == {"background": 0, "liver": 2, "spleen": 1}
    assert list(checked) == list(labels)
    assert all(type(number) is int for number in checked.values())
    manager = LabelManager(labels, None)
    assert manager.all_labels == sorted(checked.values())
    assert not manager.has_regions


def test_an_ignore_label_is_the_highest():
    labels = {"background": 0, "ignore": 2, "liver": "1"}
    assert checked_labels(labels, "dataset.json") == {"background": 0, "ignore": 2, "liver": 1}
    assert LabelManager(labels, None).ignore_label == 2


BAD_LABELS = [
    (None, "'labels' is null, but must give every name its number"),
    ([], "'labels' is a list"),
    (["background", "liver"], "'labels' is a list"),
    ("liver", "'labels' is a text"),
    (3, "'labels' is a number"),
    (True, "'labels' is true"),
    ({}, "has no 'background'"),
    ({"liver": 1}, "has no 'background'"),
    ({"background": 0}, "has no label beside the background"),
    ({"background": 0, "ignore": 1}, "has no label beside the background"),
    ({"Background": 0, "liver": 1}, "writes 'Background', but nnU-Net needs this name, with number 0"),
    ({" background": 0, "liver": 1}, "writes ' background'"),
    ({"background": 1, "liver": 0}, "'background' has number 1, but nnU-Net needs 0"),
    ({"background": "3", "liver": 1}, "'background' has number 3"),
    ({"background": [0], "liver": 1}, r"'background' is [0], but must be a whole number"),
    ({"background": 0, "liver": True}, "'liver' is true, but must be a whole number"),
    ({"background": False, "liver": 1}, "'background' is false"),
    ({"background": 0, "liver": None}, "'liver' is null"),
    ({"background": None, "liver": 1}, "'background' is null"),
    ({"background": 0, "liver": []}, "'liver' is []"),
    ({"background": 0, "liver": [[1]]}, "'liver' is [[1]]"),
    ({"background": 0, "liver": [True]}, "'liver' is [True]"),
    ({"background": 0, "liver": {"number": 1}}, "'liver' is {'number': 1}"),
    ({"background": 0, "liver": 1.5}, "'liver' is 1.5, but must be a whole number"),
    ({"background": 0, "liver": math.nan}, "'liver' is nan"),
    ({"background": 0, "liver": math.inf}, "'liver' is inf"),
    ({"background": 0, "liver": "one"}, "'liver' is 'one'"),
    ({"background": 0, "liver": "1.0"}, "'liver' is '1.0'"),
    ({"background": 0, "liver": ""}, "'liver' is ''"),
    ({"background": 0, "liver": "9" * 400}, "'liver' is '999"),
    ({"background": 0, "liver": -1}, "'liver' is -1, but nnU-Net numbers labels from 0 on"),
    ({"background": 0, "liver": "-7"}, "'liver' is -7"),
    ({"background": 0, "liver": 10**20}, "has no label 1, but 'liver' has number 100000000000000000000"),
    ({"background": 0, "liver": 1e30}, "has no label 1, but 'liver' has number 1000000000000000019884624838656"),
    ({"background": 0, "liver": 10**299}, "has no label 1, but 'liver' has number 1000"),
    ({"background": 0, "liver": 1, "spleen": 3}, "has no label 2, but 'spleen' has number 3"),
    ({"background": 0, "liver": 4}, "has no label 1, but 'liver' has number 4"),
    ({"background": 0, "liver": 1, "spleen": 1}, "gives 'liver' and 'spleen' the number 1"),
    ({"background": 0, "liver": 1, "spleen": "1"}, "gives 'liver' and 'spleen' the number 1"),
    ({"background": 0, "air": 0}, "gives 'background' and 'air' the number 0"),
    (
        {"background": 0, "ignore": 1, "liver": 2},
        "'ignore' has number 1, but nnU-Net needs the highest one: 'liver' has 2",
    ),
    ({"background": 0, "liver": 1, "ignore": 255}, "has no label 2, but 'ignore' has number 255"),
    ({"background": 0, "liver": 1, "ignore": "2"}, "'ignore' is '2'"),
    ({"background": 0, "liver": 1, "ignore": [2]}, "'ignore' is [2]"),
    ({"background": 0, "liver": 1, "ignore": 2.0}, "'ignore' is 2.0"),
    ({"background": 0, "liver": 1, "ignore": None}, "'ignore' is null, but must be a whole number"),
    ({"background": 0, "": 1}, "the name '' of label 1 is empty"),
    ({"background": 0, "  ": 1}, "the name '  ' of label 1 is empty"),
    ({"background": 0, "left\nkidney": 1}, r"the name 'left\nkidney' of label 1"),
    ({"background": 0, "liver\x00": 1}, r"the name 'liver\x00' of label 1"),
    (
        {"0": "background", "1": "liver"},
        "as nnU-Net v1 wanted them ('0': 'background'). Write the names first: "
        '"labels": {"background": 0, "liver": 1}',
    ),
    ({"background": 0, "1": "liver"}, 'Write the names first: "labels": {"background": 0, "liver": 1}'),
]


@pytest.mark.parametrize(("labels", "message"), BAD_LABELS, ids=[str(labels)[:40] for labels, _ in BAD_LABELS])
def test_labels_that_nnunet_cannot_use_are_refused(labels, message):
    with pytest.raises(CILError, match=re.escape(message)) as error:
        checked_labels(labels, "/raw/dataset.json")
    assert str(error.value).startswith("/raw/dataset.json")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("region", [[1, 2], (1, 2), ["1", "2"], [1.0, 2]])
def test_regions_are_read_as_numbers(region):
    labels = checked_labels({"background": 0, "tumour": region, "core": [2], "ignore": 3}, "dataset.json")
    assert labels == {"background": 0, "tumour": (1, 2), "core": 2, "ignore": 3}
    assert LabelManager(labels, [1, 2]).foreground_regions == [(1, 2), 2]


def test_regions_of_a_model_that_has_learnt_some_of_them_are_read():
    """It leaves out numbers, and writes a single one twice."""
    labels = {"background": 0, "core": [3, 3], "whole": [1, 3], "ignore": 4}
    assert checked_labels(labels, "x") == {"background": 0, "core": (3, 3), "whole": (1, 3), "ignore": 4}


BAD_REGIONS = [
    ({"tumour": [0, 1]}, [1], "the region 'tumour' holds 0, the background. Leave it out of the region."),
    ({"a": [1, 2], "b": [2, 1]}, [1, 2], "gives 'a' and 'b' the same numbers [1, 2]"),
    ({"a": [1, 2], "ignore": 2}, [1], "needs the number after the largest of any region, 3. Renumber"),
    ({"a": [1, "x"]}, [1], "the label 'a' is 'x', but must be a whole number"),
    ({"a": [1, 2], "b": 2}, None, "has regions, but no 'regions_class_order'. Add the number"),
    ({"a": [1, 2], "b": 2}, [1], "is [1], but must be a list of 2 numbers"),
    ({"a": [1, 2], "b": 2}, [1, True], "is [1, True], but must be a list of 2 numbers"),
    ({"a": [1, 2], "b": 2}, 3, "is 3, but must be a list of 2 numbers"),
    ({"a": [2, 3], "b": 1}, [1, 2], "gives the region 'a' the number 1, which is none of its own, [2, 3]."),
]


@pytest.mark.parametrize(("labels", "order", "message"), BAD_REGIONS, ids=[m[:30] for *_, m in BAD_REGIONS])
def test_regions_that_cannot_be_trained_are_refused(labels, order, message):
    content = {"channel_names": {"0": "MR"}, "labels": {"background": 0, **labels}, "file_ending": ".nii.gz"}
    content |= {} if order is None else {"regions_class_order": order}
    with pytest.raises(CILError, match=re.escape(message)) as error:
        checked_dataset_json(content, "/raw/dataset.json")
    assert str(error.value).startswith("/raw/dataset.json")
    assert len(str(error.value)) < 350


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        ({"MR": 0}, 'the wrong way round. Write the numbers first: "channel_names": {"0": "MR"}'),
        ({"T1": 0, "T2": 1}, 'the wrong way round. Write the numbers first: "channel_names": {"0": "T1", "1": "T2"}'),
        ({"0": 0}, "the name of channel '0' must be a text"),
        ({"0": None}, "the name of channel '0' must be a text"),
        ({"0": ["CT"]}, "the name of channel '0' must be a text"),
        ({"0": True}, "the name of channel '0' must be a text"),
        ({"0": ""}, "the name of channel '0' must be a text"),
        ({"0": "a\tb"}, "the name of channel '0' must be a text"),
        (["MR"], "is ['MR'], but must give every channel's number its name"),
        ("CT", "is 'CT', but must give"),
        (None, "is null, but must give"),
        (1, "is 1, but must give"),
        ({}, "is {}, but must give"),
        ([], "is [], but must give"),
        ({"0": "T1", "2": "T2"}, "but nnU-Net numbers its 2 channels 0, 1"),
        ({"1": "T1"}, "but nnU-Net numbers its 1 channels 0"),
        ({"00": "T1"}, "but nnU-Net numbers its 1 channels 0"),
        ({"0000": "T1"}, "but nnU-Net numbers"),
        ({"T1": "0"}, 'the wrong way round. Write the numbers first: "channel_names": {"0": "T1"}'),
        ({"-1": "T1", "0": "T2"}, "but nnU-Net numbers"),
    ],
    ids=str,
)
def test_channels_of_the_wrong_form_are_refused(channels, message):
    for key in ("channel_names", "modality"):
        content = {"labels": GOOD["labels"], "file_ending": ".png", key: channels}
        with pytest.raises(CILError, match=re.escape(message)) as error:
            checked_dataset_json(content, "/raw/dataset.json")
        assert str(error.value).startswith("/raw/dataset.json: 'channel_names'")


@pytest.mark.parametrize(
    "ending", [None, True, 7, [".nii.gz"], {}, "", "nii.gz", ".", "..", ".nii.", "/x.png", ".a/b", ".n\n"]
)
def test_an_ending_that_no_file_can_have_is_refused(ending):
    with pytest.raises(CILError, match=r"'file_ending' is .*must be a text that begins with a dot"):
        checked_dataset_json({**GOOD, "file_ending": ending}, "dataset.json")


@pytest.mark.parametrize("key", ["labels", "channel_names", "file_ending"])
def test_a_missing_key_is_named_with_an_example(tmp_path, key):
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({k: v for k, v in GOOD.items() if k != key}))
    with pytest.raises(CILError, match=f'dataset.json lacks .{key}., .* Add it: "{key}": '):
        read_dataset_json(file)


def test_two_lists_of_channels_are_refused_unless_they_are_alike():
    assert checked_dataset_json({**GOOD, "modality": {"0": "T2"}}, "")["channel_names"] == {"0": "T2"}
    with pytest.raises(CILError, match=r"and another 'modality', its old name\. Remove 'modality'"):
        checked_dataset_json({**GOOD, "modality": {"0": "T1", "1": "T2"}}, "dataset.json")


@pytest.mark.parametrize(
    "patterns", [None, [], "liver", {"a": "liver"}, {"a": None}, {"a": [1]}, {"*": {"liver": 1}}, True]
)
def test_labelled_classes_of_the_wrong_form_are_refused(patterns):
    with pytest.raises(CILError, match=r"'labelled_classes' is .*must be a list of classes for every pattern"):
        checked_dataset_json({**GOOD, "labelled_classes": patterns}, "dataset.json")


@pytest.mark.parametrize("reader", [None, 3, "", ["SimpleITKIO"], {}])
def test_a_reader_that_is_no_name_is_refused(reader):
    with pytest.raises(CILError, match=r"'overwrite_image_reader_writer' is .*Remove it, and nnU-Net chooses"):
        checked_dataset_json({**GOOD, "overwrite_image_reader_writer": reader}, "dataset.json")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (None, "'dataset' is null"),
        ([], "'dataset' is []"),
        ("Dataset017_X", "'dataset' is 'Dataset017_X'"),
        ({}, "'dataset' is {}"),
        ({"a": None}, "the files of case 'a' under 'dataset' are null"),
        ({"a": ["x.png", "y.png"]}, "the files of case 'a'"),
        ({"a": {"images": "x.png", "label": "y.png"}}, "the files of case 'a'"),
        ({"a": {"images": ["x.png"]}}, "the files of case 'a'"),
        ({"a": {"images": ["x.png"], "label": None}}, "the files of case 'a'"),
        ({"a": {"images": ["x.png"], "label": ["y.png"]}}, "the files of case 'a'"),
        ({"a": {"images": [1], "label": "y.png"}}, "the files of case 'a'"),
        ({"a": {"images": [], "label": "y.png"}}, "case 'a' has 0 images"),
        (
            {"a": {"images": ["x.png", "z.png"], "label": "y.png"}},
            "case 'a' has 2 images under 'dataset', but the data set has 1",
        ),
        ({"": {"images": ["x.png"], "label": "y.png"}}, "a case '', which cannot be the name of a file"),
        ({"p/a": {"images": ["x.png"], "label": "y.png"}}, "a case 'p/a', which cannot be the name of a file"),
    ],
    ids=str,
)
def test_lists_of_files_of_the_wrong_form_are_refused(files, message):
    with pytest.raises(CILError, match=re.escape(message)):
        checked_dataset_json({**GOOD, "dataset": files}, "dataset.json")


def test_the_content_stays_as_it_was():
    content = {**GOOD, "labels": {"background": 0, "liver": "1"}, "numTraining": 3}
    before = json.dumps(content)
    assert checked_dataset_json(content, "dataset.json")["labels"] == {"background": 0, "liver": 1}
    assert json.dumps(content) == before
