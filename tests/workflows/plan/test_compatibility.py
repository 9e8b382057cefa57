"""Comparing a model with a data set, in numbers."""

from dataclasses import replace

import pytest
from toy import base_plans, make_raw

from nnunet_cil.host.raw_dataset import read_sample
from nnunet_cil.workflows.plan.compatibility import Note, Severity, compare


def sample(tmp_path, **kwargs):
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    folder = make_raw(tmp_path, "Dataset030_Fit", {"background": 0, "liver": 1}, **kwargs)
    return read_sample([[str(f)] for f in sorted((folder / "imagesTr").iterdir())], SimpleITKIO())


def compared(plans, data, channels="MR", orientations=()):
    settings = plans["configurations"]["3d_fullres"]
    notes = compare(
        plans, settings, {"0": "MR"}, channels if isinstance(channels, dict) else {"0": channels}, data, orientations
    )
    return [n.text for n in notes if n.is_blocking], [n.text for n in notes]


def test_what_is_compatible_is_noted_in_numbers(tmp_path):
    blocking, notes = compared(base_plans(), sample(tmp_path), orientations=("LPS",))
    assert blocking == []
    assert "channels: MR" in notes
    assert "size: median 20 x 22 x 24 voxels" in notes
    assert "spacing: 1 x 1 x 1 mm, the model's 1 x 1 x 1 mm" in notes
    assert "orientation: LPS, the model's LPS" in notes


def test_what_differs_too_much_blocks(tmp_path):
    data = sample(tmp_path, spacing=4.0)
    plans = base_plans()
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = ["CTNormalization"]
    plans["foreground_intensity_properties_per_channel"]["0"] |= {"percentile_00_5": 100.0, "percentile_99_5": 300.0}
    blocking, _ = compared(plans, data, channels="CT", orientations=("RAS",))
    assert [text.split(":")[0] for text in blocking] == [
        "channels",
        "spacing",
        "intensities of channel 0",
        "orientation",
    ]
    assert "median differs 4.0 times" in blocking[1]
    assert "100 to 300, where 0.0% of the voxels are" in blocking[2]
    blocking, _ = compared(base_plans(), data, channels={"0": "MR", "1": "T2"})
    assert blocking == ["channels: the model takes 1 (MR), the data set has 2 (MR, T2)"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image * 250, None),  # -25 to 1000
        (lambda image: image * 250 + 1024, "none is below 0: these are no Hounsfield units"),
        (lambda image: image / 5 - 0.02, "look rescaled"),
    ],
)
def test_a_ct_in_other_units_blocks(tmp_path, change, message):
    data = sample(tmp_path)
    data = replace(data, images=[change(image) for image in data.images])
    plans = base_plans()
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = ["CTNormalization"]
    plans["foreground_intensity_properties_per_channel"]["0"] |= {"percentile_00_5": -100.0, "percentile_99_5": 300.0}
    blocking, _ = compared(plans, data)
    assert [message in text for text in blocking] == ([True] if message else [])


def test_a_note_is_marked_for_the_user_where_it_blocks():
    assert str(Note("size: fine")) == "   size: fine"
    assert str(Note("size: odd", Severity.BLOCKING)) == "!! size: odd"
    assert str(Note("size: none", Severity.UNTRAINABLE)) == "!! size: none"
