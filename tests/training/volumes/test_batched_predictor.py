"""nnU-Net's sliding window with several patches in a forward pass."""

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from toy import base_plans, dataset_json

from nnunet_cil.training.volumes.batched_predictor import BatchedPredictor


def predictors(name, batch_size, **options):
    """Returns nnU-Net's predictor and ours, of one network, and the batch sizes that the network gets."""
    plans = base_plans()
    plans["configurations"][name]["batch_size"] = batch_size
    torch.manual_seed(0)
    manager = PlansManager(plans)
    own = manager.get_configuration(name)
    described = own.network_arch_class_name, own.network_arch_init_kwargs, own.network_arch_init_kwargs_req_import
    network = get_network_from_plans(*described, 1, 4, deep_supervision=False)
    sizes = []
    network.register_forward_pre_hook(lambda _network, inputs: sizes.append(len(inputs[0])))
    data = dataset_json({"background": 0, "a": 1, "b": 2, "c": 3})
    made = []
    for kind in (nnUNetPredictor, BatchedPredictor):
        predictor = kind(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False, **options)
        predictor.manual_initialization(network, manager, own, None, data, "", (0, 1))
        made.append(predictor)
    return *made, sizes


@pytest.mark.parametrize("mirrors", [False, True])
@pytest.mark.parametrize(("name", "batch_size"), [("3d_fullres", 2), ("3d_fullres", 5), ("2d", 7), ("3d_fullres", 1)])
def test_the_logits_are_nnunets_whatever_the_number_of_patches_in_a_batch(name, batch_size, mirrors):
    theirs, ours, sizes = predictors(name, batch_size, use_mirroring=mirrors)
    image = torch.randn(1, 18, 22, 24, generator=torch.Generator().manual_seed(1))
    expected = theirs.predict_sliding_window_return_logits(image)
    views = 4 if mirrors else 1
    num_patches = len(sizes) // views
    assert num_patches == (72 if name == "2d" else 8)
    sizes.clear()
    for _ in range(2):  # nothing is left over for the next case
        assert torch.allclose(ours.predict_sliding_window_return_logits(image), expected, atol=5e-3)
    whole, rest = divmod(num_patches, batch_size)
    assert sizes == ([batch_size] * whole * views + [rest] * views * bool(rest)) * 2


def test_an_image_smaller_than_a_patch_is_padded_as_by_nnunet():
    theirs, ours, _ = predictors("3d_fullres", 2, use_mirroring=False)
    image = torch.randn(1, 9, 16, 40, generator=torch.Generator().manual_seed(2))
    found, expected = (p.predict_sliding_window_return_logits(image) for p in (ours, theirs))
    assert found.shape == (4, 9, 16, 40)
    assert torch.allclose(found, expected, atol=5e-3)
