"""Widening, reading features, the teacher, the prototype bank."""

import math

import pytest
import torch
from torch import nn
from toy import base_plans

from nnunet_cil.networks import architectures
from nnunet_cil.networks.architectures import encoder_stages
from nnunet_cil.networks.features import FeatureReader, HeadReader, StageReader, num_features
from nnunet_cil.networks.heads import num_output_channels, widen_heads
from nnunet_cil.networks.prototype_bank import PrototypeBank
from nnunet_cil.networks.teacher import Teacher


def network(num_classes, architecture="PlainConvUNet", configuration="3d_fullres", deep=True):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(base_plans(architecture=architecture))
    return nnUNetTrainer.build_network_architecture(plans, plans.get_configuration(configuration), 1, num_classes, deep)


@pytest.mark.parametrize("architecture", ["PlainConvUNet", "ResidualEncoderUNet"])
@pytest.mark.parametrize(("configuration", "size"), [("3d_fullres", (1, 1, 16, 16, 16)), ("2d", (1, 1, 16, 16))])
@pytest.mark.parametrize("num_new", [1, 3])
def test_widened_network_splits_the_background_evenly_at_every_scale(architecture, configuration, size, num_new):
    torch.manual_seed(0)
    old, new = network(3, architecture, configuration), network(3 + num_new, architecture, configuration)
    for layer in old.decoder.seg_layers:
        nn.init.normal_(layer.bias)
    before = {k: v.clone() for k, v in old.state_dict().items()}
    new.load_state_dict(widen_heads(old.state_dict(), num_new), strict=True)
    assert all(torch.equal(before[k], v) for k, v in old.state_dict().items())
    images = torch.randn(size)
    for was, now in zip(old(images), new(images), strict=True):
        was, now = was.softmax(1), now.softmax(1)
        assert torch.allclose(now[:, 1:3], was[:, 1:], atol=1e-5)
        for c in (0, *range(3, 3 + num_new)):
            assert torch.allclose(now[:, c], was[:, 0] / (num_new + 1), atol=1e-5)


def test_widened_biases_by_hand():
    weights = {
        "decoder.seg_layers.0.weight": torch.tensor([[1.0], [2.0]]),
        "decoder.seg_layers.0.bias": torch.tensor([3.0, 4.0]),
        "encoder.bias": torch.tensor([9.0]),
    }
    widened = widen_heads(weights, 2)
    split = 3 - math.log(3)
    assert torch.allclose(widened["decoder.seg_layers.0.bias"], torch.tensor([split, 4, split, split]))
    assert torch.equal(widened["decoder.seg_layers.0.weight"], torch.tensor([[1.0], [2], [1], [1]]))
    assert widened["encoder.bias"] is weights["encoder.bias"]


def test_noise_makes_the_new_rows_differ_and_leaves_the_rest_as_it_is():
    torch.manual_seed(0)
    old = network(3).state_dict()
    plain, noisy = widen_heads(old, 2), widen_heads(old, 2, noise=0.5, seed=1)
    assert all(torch.equal(t, noisy[k]) for k, t in widen_heads(old, 2, noise=0.5, seed=1).items())
    heads = [k for k in old if "seg_layers" in k and k.endswith("weight")]
    assert {k for k in old if not torch.equal(plain[k], noisy[k])} == set(heads)
    eps = []
    for key in heads:
        assert torch.equal(noisy[key][:3], plain[key][:3])
        assert not torch.equal(noisy[key][3], noisy[key][4])
        assert not torch.equal(noisy[key], widen_heads(old, 2, noise=0.5, seed=2)[key])
        moved = (noisy[key][3:] - old[key][0]).double()
        eps.append((moved / (0.5 * old[key][0].double().std(correction=0))).flatten())
    values = torch.cat(eps)
    assert len(values) >= 16
    assert abs(values.mean()) < 3 / math.sqrt(len(values))
    assert abs(values.square().mean() - 1) < 3 * math.sqrt(2 / len(values))


def test_number_of_outputs_is_read_from_the_weights():
    assert num_output_channels(network(4).state_dict()) == 4
    assert num_output_channels({"linear.weight": torch.zeros(2, 2)}) is None


def test_features_are_the_input_of_the_last_segmentation_layer():
    net = network(3)
    keys = list(net.state_dict())
    reader = FeatureReader(net)
    assert list(net.state_dict()) == keys
    with reader.reading():
        logits = net(torch.randn(1, 1, 16, 16, 16))[0]
        features = reader.take()
        assert features.requires_grad
        with pytest.raises(RuntimeError, match="has not run"):
            reader.take()
    assert torch.equal(net.decoder.seg_layers[-1](features), logits)


def primus():
    """A network of nnU-Net's transformers, which have a head of their own."""
    from dynamic_network_architectures.architectures.primus import Primus

    with torch.device("meta"):
        return Primus(1, 24, (8, 8, 8), 3, eva_depth=1, eva_numheads=2, input_shape=(16, 16, 16))


@pytest.mark.parametrize(("make", "name"), [(primus, "Primus"), (lambda: nn.Linear(2, 2), "Linear")])
def test_a_network_of_another_structure_is_refused(make, name):
    with pytest.raises(NotImplementedError, match=rf"^{name} has no 'decoder\.seg_layers': .* residual U-Nets\."):
        FeatureReader(make())


class OneHead(nn.Module):
    """A network with one segmentation layer, and no other resolution."""

    def __init__(self, num_classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU())
        self.out = nn.Conv2d(6, num_classes, 1)

    def forward(self, images):
        return self.out(self.body(images))


def test_another_architecture_is_one_entry(monkeypatch):
    entry = architectures.Architecture(heads="out", encoder_stages="body")
    monkeypatch.setattr(architectures, "ARCHITECTURES", (*architectures.ARCHITECTURES, entry))
    old, new = OneHead(3), OneHead(5)
    new.load_state_dict(widen_heads(old.state_dict(), 2))
    assert num_output_channels(new.state_dict()) == 5
    assert num_features(new) == 6
    assert architectures.head_names(new.state_dict()) == [("out.weight", "out.bias")]
    assert architectures.switch_deep_supervision(new, True) is False
    images = torch.randn(2, 1, 8, 8)
    assert torch.allclose(new(images).softmax(1)[:, 1:3], old(images).softmax(1)[:, 1:], atol=1e-6)
    output, heads = Teacher(old, torch.device("cpu"))(images), HeadReader(new)
    assert torch.equal(output.features, old.body(images))
    with heads.reading():
        new(images)
        assert torch.equal(heads.take()[0], new.body(images))


def test_heads_are_ordered_by_their_scale():
    names = [f"decoder.seg_layers.{index}.{part}" for index in (10, 2, 0) for part in ("bias", "weight")]
    assert [weight for weight, _ in architectures.head_names(names)] == [
        f"decoder.seg_layers.{index}.weight" for index in (0, 2, 10)
    ]


def test_the_teachers_output_has_no_gradient_and_is_its_networks():
    net = network(3, deep=False)
    teacher = Teacher(net, torch.device("cpu"))
    images = torch.randn(1, 1, 16, 16, 16)
    for output in (teacher(images), teacher.on_batch(images)):
        assert not output.logits.requires_grad
        assert not output.features.requires_grad
        assert torch.equal(output.logits, net(images))
        assert torch.equal(net.decoder.seg_layers[-1](output.features), output.logits)


def test_readers_hold_nothing_but_while_they_read():
    net = network(3, deep=False)
    features, stages = FeatureReader(net), StageReader(encoder_stages(net)[-1:])
    images = torch.randn(1, 1, 16, 16, 16)
    for reader in (features, stages):
        net(images)
        with reader.reading():
            with pytest.raises(RuntimeError, match="has not run"):
                reader.take()
            net(images)
        with pytest.raises(RuntimeError, match="has not run"):
            reader.take()
    with stages.reading():
        net(images)
        assert stages.take()[0].shape[2:] == (4, 4, 4)


def bank(*rows, counts=None):
    prototypes = torch.tensor(rows, dtype=torch.float32)
    return PrototypeBank(prototypes, torch.tensor(counts or [1.0] * len(rows), dtype=torch.float64))


def test_background_prototype_moves_by_one_minus_momentum():
    b = bank([1.0, 1.0], [5.0, 5.0])
    b.update_background(torch.tensor([3.0, 1.0]), torch.tensor(4.0), 0.9)
    assert torch.allclose(b.prototypes, torch.tensor([[1.2, 1.0], [5.0, 5.0]]))
    for mean, count in (([9.0, 9.0], 0.0), ([float("inf"), 1.0], 4.0), ([float("nan"), 1.0], 4.0)):
        b.update_background(torch.tensor(mean), torch.tensor(count), 0.9)
        assert torch.allclose(b.prototypes[0], torch.tensor([1.2, 1.0]))


def test_refresh_blends_the_known_takes_over_the_unknown_and_skips_the_rare():
    inherited = bank([0.0], [0.0], [0.0], counts=[100.0, 0.0, 100.0])
    fresh = bank([4.0], [4.0], [4.0], counts=[50.0, 50.0, 5.0])
    blended = inherited.blended(fresh, 0.25, 10)
    assert blended.prototypes.flatten().tolist() == [1.0, 4.0, 0.0]
    assert blended.counts.tolist() == [100.0, 50.0, 100.0]


def test_joined_bank_carries_old_classes_and_renews_the_background():
    joined = bank([0.0], [1.0]).joined(bank([7.0], [8.0], counts=[3.0, 2.0]))
    assert joined.prototypes.flatten().tolist() == [7.0, 1.0, 8.0]
    kept = bank([0.0], [1.0]).joined(bank([7.0], [8.0], counts=[0.0, 2.0]))
    assert kept.prototypes.flatten().tolist() == [0.0, 1.0, 8.0]


def test_bank_survives_its_state_dict():
    b = PrototypeBank.from_sums(torch.tensor([[4.0, 8.0], [0.0, 0.0]], dtype=torch.float64), torch.tensor([2.0, 0.0]))
    again = PrototypeBank.from_state_dict(b.state_dict())
    assert torch.equal(again.prototypes, torch.tensor([[2.0, 4.0], [0.0, 0.0]]))
    assert again.known.tolist() == [True, False]
