"""Further inputs of a network: what it puts out with them, and what a teacher sees of them."""

import pytest
import torch
from torch import nn
from toy import base_plans

from nnunet_cil.networks.inputs import see_channels, shared_part, widen_inputs


def with_inputs(number, architecture, configuration):
    """Returns a network with so many input channels."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(base_plans(architecture=architecture))
    settings = plans.get_configuration(configuration)
    return nnUNetTrainer.build_network_architecture(plans, settings, number, 3, True)


@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize(("configuration", "axes"), [("3d_fullres", 3), ("2d", 2)])
@pytest.mark.parametrize("channels", [[0, 1], [0, 3]])
def test_a_network_with_further_inputs_puts_out_what_it_did_whatever_they_show(
    architecture, configuration, axes, channels
):
    torch.manual_seed(3)
    old, new = with_inputs(2, architecture, configuration), with_inputs(5, architecture, configuration)
    weights = widen_inputs(old.state_dict(), new.state_dict(), channels)
    new.load_state_dict(weights, strict=True)
    images = torch.randn(2, 5, *[16] * axes)
    for was, now in zip(old(images[:, channels]), new(images), strict=True):
        assert torch.allclose(was, now, atol=1e-6)
    grown = [name for name, tensor in old.state_dict().items() if tensor.shape != weights[name].shape]
    assert grown
    for name in grown:
        assert torch.equal(weights[name][:, channels], old.state_dict()[name])
        assert not weights[name][:, [c for c in range(5) if c not in channels]].any()
        if channels == [0, 1]:
            assert torch.equal(shared_part(weights[name], old.state_dict()[name]), old.state_dict()[name])


def test_a_network_without_further_inputs_stays_as_it_is():
    weights = with_inputs(2, "PlainConvUNet", "2d").state_dict()
    assert all(widen_inputs(weights, weights, [0, 1])[name] is tensor for name, tensor in weights.items())


def test_a_network_may_see_some_channels_only():
    layer = nn.Conv2d(2, 1, 1)
    images = torch.randn(1, 4, 3, 3)
    expected = layer(images[:, [0, 3]])
    see_channels(layer, [0, 3])
    assert torch.equal(layer(images), expected)
