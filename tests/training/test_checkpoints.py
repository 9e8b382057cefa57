"""Checkpoints that are damaged, or a stranger's: what is read of them, and the sentence that refuses them."""

import pytest
import torch
from toy import base_plans, init_args

from nnunet_cil.errors import CILError
from nnunet_cil.training.checkpoints import foreground_classes, num_parameters, read_checkpoint, read_model_checkpoint


@pytest.mark.parametrize("lazily", [True, False])
def test_weights_that_a_state_dict_names_twice_are_counted_once(tmp_path, lazily):
    """nnU-Net's decoder holds the encoder, and each block its layers a second time."""
    network = torch.nn.ModuleDict({"encoder": torch.nn.Conv2d(3, 5, 3), "norm": torch.nn.BatchNorm2d(5)})
    network["decoder"] = torch.nn.ModuleList([network["encoder"], torch.nn.Conv2d(5, 2, 1)])
    torch.save({"network_weights": network.state_dict(), "init_args": {}}, tmp_path / "checkpoint.pth")
    statistics = 2 * 5  # running means and variances, which a prediction needs
    expected = 3 * 5 * 9 + 5 + 2 * 5 + statistics + 5 * 2 + 2
    assert num_parameters(read_checkpoint(tmp_path / "checkpoint.pth", lazily=lazily)) == expected


@pytest.mark.parametrize("place", [0.2, 0.35, 0.5, 0.65, 0.8])
@pytest.mark.parametrize("bit", [0, 7])
def test_a_checkpoint_with_one_changed_bit_is_refused(tmp_path, place, bit):
    """torch reads it as other weights."""
    file = tmp_path / "checkpoint_final.pth"
    weights = {f"layer{i}": torch.arange(500.0) + i for i in range(20)}
    torch.save({"network_weights": weights, "init_args": init_args(base_plans())}, file)
    assert read_checkpoint(file)["network_weights"]["layer3"][4] == 7
    content = bytearray(file.read_bytes())
    offsets = [content.index(weights[f"layer{i}"].numpy().tobytes()) for i in range(20)]
    content[offsets[int(place * 20)] + 100] ^= 1 << bit
    file.write_bytes(content)
    torch.load(file, weights_only=True)
    with pytest.raises(
        CILError, match=rf"{file} is damaged: a part of it does not have its checksum .* Restore the file"
    ):
        read_checkpoint(file)


DESCRIBED = {"channel_names": {"0": "MR"}, "labels": {"background": 0, "b": 2, "a": 1}, "file_ending": ".nii.gz"}


ARGUMENTS = {
    "plans": {"plans_name": "p", "dataset_name": "d"},
    "configuration": "2d",
    "fold": 0,
    "dataset_json": DESCRIBED,
}


@pytest.mark.parametrize("labels", [{"a": "1", "b": "2"}, {"b": 2.0, "a": 1.0}, {"b": [2], "a": [1]}], ids=str)
def test_labels_of_another_form_in_a_foreign_checkpoint_mean_what_they_mean_to_nnunet(tmp_path, labels):
    file = tmp_path / "checkpoint_final.pth"
    described = {**DESCRIBED, "labels": {"background": 0, **labels}}
    torch.save({"network_weights": {}, "init_args": {**ARGUMENTS, "dataset_json": described}}, file)
    checkpoint = read_model_checkpoint(file)
    assert foreground_classes(checkpoint) == ["a", "b"]
    assert checkpoint["init_args"]["dataset_json"]["labels"] == {"background": 0, "a": 1, "b": 2}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (None, "do not say what it was trained on"),
        ([], "do not say what it was trained on"),
        ({}, "do not say what it was trained on"),
        ({**ARGUMENTS, "plans": None}, "do not say what it was trained on"),
        ({**ARGUMENTS, "dataset_json": []}, "do not say what it was trained on"),
        ({key: value for key, value in ARGUMENTS.items() if key != "fold"}, "do not say what it was trained on"),
        ({**ARGUMENTS, "dataset_json": {}}, "dataset.json in .*checkpoint_final.pth lacks 'channel_names'"),
        ({**ARGUMENTS, "dataset_json": {**DESCRIBED, "labels": None}}, "dataset.json in .*'labels' is null"),
        ({**ARGUMENTS, "dataset_json": {**DESCRIBED, "labels": {"background": 0, "a": 7}}}, "has no label 1, but 'a'"),
        ({**ARGUMENTS, "dataset_json": {**DESCRIBED, "channel_names": ["MR"]}}, "'channel_names' is "),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_foreign_checkpoint_that_does_not_say_what_it_is_of(tmp_path, arguments, message):
    file = tmp_path / "checkpoint_final.pth"
    torch.save({"network_weights": {}, "init_args": arguments}, file)
    with pytest.raises(CILError, match=message):
        read_model_checkpoint(file)
