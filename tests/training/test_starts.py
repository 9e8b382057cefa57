"""How a step's new channels start: as nnU-Net's own, from the background, or imprinted from the teacher's features."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import maximum_filter
from toy import ORGANS, checkpoint, make_trainer, plan_toy, train

from nnunet_cil.networks.heads import widen_heads
from nnunet_cil.networks.imprinting import MARGIN, Moments, imprinted_heads

PGCD, MIB, LWF = "nnUNetTrainerPGCD", "nnUNetTrainerMiB", "nnUNetTrainerLwF"
DEFAULTS = {
    "PGCD": "imprinted",
    "PGCDPaper": "balanced",
    "MiB": "balanced",
    "EWF": "balanced",
    "PLOP": "balanced",
    "Replay": "balanced",
    "FineTune": "fresh",
    "Joint": "fresh",
    "LwF": "fresh",
    "ILT": "fresh",
    "EWC": "fresh",
    "PseudoLabel": "fresh",
}


def started(name, plans_name, **more):
    """Returns a trainer at the start of its training, and its first weights."""
    trainer = make_trainer(name, plans_name, **more)
    trainer.on_train_start()
    return trainer, {key: tensor.clone() for key, tensor in trainer.bare_network.state_dict().items()}


def test_every_method_starts_as_published(toy, tmp_path):
    name = plan_toy(tmp_path)[0]
    found = {method: make_trainer(f"nnUNetTrainer{method}", name) for method in DEFAULTS}
    assert {method: trainer.new_class_start for method, trainer in found.items()} == DEFAULTS
    assert [m for m, trainer in found.items() if trainer.old_class_sampling] == ["PGCD"]
    assert [m for m, trainer in found.items() if trainer.teacher_volumes] == ["PGCD", "PseudoLabel"]
    assert [m for m, trainer in found.items() if trainer.old_dice_weight] == ["PGCD"]


@pytest.mark.parametrize(("name", "options"), [("nnUNetTrainerEWC", {}), (MIB, {"new_class_start": "fresh"})])
def test_a_fresh_start_draws_new_channels_as_nnunet_and_leaves_old_ones_alone(toy, tmp_path, name, options):
    names = plan_toy(tmp_path, first_trainer=PGCD, hyperparameters=options)
    old = checkpoint(train(PGCD, names[0]))["network_weights"]
    torch.manual_seed(1)
    trainer, first = started(name, names[1])
    torch.manual_seed(2)
    again = started(name, names[1])[1]
    bound = 4 * np.sqrt(2 / 1.0001)  # He's, of the slope 0.01
    drawn = []
    for key, tensor in first.items():
        assert torch.equal(tensor, again[key]), key  # as on another rank
        if "seg_layers" in key:
            assert torch.equal(tensor[:3], old[key]), key
            drawn.append((tensor[3:] * tensor.shape[1] ** 0.5).flatten() if key.endswith("weight") else tensor[3:])
        else:
            assert torch.equal(tensor, old[key]), key
    biases = torch.cat([d for d in drawn if len(d) == 2])
    weights = torch.cat([d for d in drawn if len(d) > 2])
    assert torch.equal(biases, torch.zeros_like(biases))
    assert 0.8 < weights.std() < 2.2
    assert weights.abs().max() < bound
    if name.endswith("EWC"):
        penalty = trainer.loss._anchors
        assert all(torch.equal(first[key][: len(tensor)], tensor) for key, tensor in penalty.items())


@pytest.mark.parametrize(
    ("name", "configuration", "size"), [(MIB, "3d_fullres", 32), ("nnUNetTrainerFineTune", "2d", 32)]
)
def test_an_imprinted_start_is_the_discriminant_of_whole_cases(toy, tmp_path, name, configuration, size):
    """Against loops over the padded cases, each of which is one tile; at both scales."""
    options = {"new_class_start": "imprinted"}
    names = plan_toy(tmp_path, [ORGANS[2:], ORGANS[:2]], first_trainer=PGCD, hyperparameters=options)
    for step in names:
        plans = json.loads((toy / f"{step}.json").read_text())
        plans["configurations"][configuration]["patch_size"] = [size] * (2 if configuration == "2d" else 3)
        (toy / f"{step}.json").write_text(json.dumps(plans))
    old = checkpoint(train(PGCD, names[0], configuration=configuration))["network_weights"]
    trainer, found = started(name, names[1], configuration=configuration)
    axes = 2 if configuration == "2d" else 3
    network, kept = trainer.teacher.network, {}
    for index, layer in enumerate(network.decoder.seg_layers):
        layer.register_forward_pre_hook(lambda _m, inputs, index=index: kept.update({index: inputs[0].numpy()}))
    network.decoder.deep_supervision = True
    groups = {(scale, c, side): [] for scale in (0, 1) for c in (3, 4) for side in ("own", "near")}
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, trainer.do_split()[0])
    for case in dataset.identifiers:
        image, segmentation = (np.asarray(x[:]) for x in dataset.load_case(case)[:2])
        shape = [n if axes == 2 and a == 0 else size for a, n in enumerate(image.shape[1:])]
        place = tuple(slice((s - n) // 2, (s - n) // 2 + n) for s, n in zip(shape, image.shape[1:], strict=True))
        padded, labels, real = np.zeros(shape, np.float32), np.zeros(shape, int), np.zeros(shape, bool)
        padded[place], real[place] = image[0], True
        labels[place] = np.select([segmentation[0] == 1, segmentation[0] == 2], [3, 4], 0)  # liver and spleen are new
        with torch.no_grad():
            images = torch.from_numpy(padded)
            network(images[:, None] if axes == 2 else images[None, None])
        for scale, features in kept.items():
            features = np.moveaxis(features, 1, 0) if axes == 2 else features[0]
            step = size // features.shape[-1]
            thin = tuple(slice(None) if axes == 2 and a == 0 else slice(step // 2, None, step) for a in range(3))
            own, is_real = labels[thin], real[thin]
            for c in (3, 4):
                window = [1 if axes == 2 and a == 0 else 7 for a in range(3)]
                near = maximum_filter(own == c, window, mode="constant") & (own == 0) & is_real
                groups[scale, c, "own"].append(features[:, (own == c) & is_real])
                groups[scale, c, "near"].append(features[:, near])
    for scale in (0, 1):
        weight, bias = (found[f"decoder.seg_layers.{scale}.{part}"] for part in ("weight", "bias"))
        assert torch.equal(weight[:3], old[f"decoder.seg_layers.{scale}.weight"])
        assert torch.equal(bias[:3], old[f"decoder.seg_layers.{scale}.bias"])
        for c in (3, 4):
            own, near = (np.concatenate(groups[scale, c, side], 1).astype(float) for side in ("own", "near"))
            mean, other, variance = own.mean(1), near.mean(1), (own.var(1) + near.var(1)) / 2
            direction = (mean - other) / (variance + 1e-3 * variance.mean())
            direction *= min(1, 2 * MARGIN / (direction @ (mean - other)))
            assert np.allclose((weight[c] - weight[0]).flatten(), direction, rtol=1e-3, atol=1e-3)
            assert float(bias[c] - bias[0]) == pytest.approx(-direction @ (mean + other) / 2, rel=1e-3, abs=1e-3)


def test_the_imprinted_logit_is_level_with_the_background_half_way_and_ahead_at_the_class():
    torch.manual_seed(0)
    moments = Moments(2, 5)
    labels = torch.zeros(1, 12, 12, dtype=torch.int64)
    labels[0, 4:7, 4:7], labels[0, 9:, 9:] = 3, 4
    features = torch.randn(1, 5, 12, 12) + (labels == 3) * 2.0 - (labels == 4) * torch.arange(5.0).view(1, 5, 1, 1)
    moments.add(features, labels, torch.ones_like(labels, dtype=torch.bool), 3)
    heads = {"decoder.seg_layers.0.weight": torch.randn(3, 5, 1, 1), "decoder.seg_layers.0.bias": torch.randn(3)}
    found, missing = imprinted_heads(heads, [moments])
    assert not missing
    difference = torch.nn.functional.conv2d(features, *found.values())
    difference = difference[:, 3:] - difference[:, :1]
    for index, c in enumerate((3, 4)):
        near = torch.from_numpy(maximum_filter((labels == c).numpy(), [1, 7, 7], mode="constant")) & (labels == 0)
        assert difference[:, index][labels == c].mean().item() == pytest.approx(MARGIN, rel=1e-3)
        assert difference[:, index][near].mean().item() == pytest.approx(-MARGIN, rel=1e-3)


@pytest.mark.parametrize("distance", [1e-3, 0.4, 1.2])
def test_a_class_that_hardly_differs_from_its_surroundings_gets_its_log_odds_and_no_large_weights(distance):
    moments, labels = Moments(1, 3), torch.zeros(1, 30, 30, dtype=torch.int64)
    labels[0, 10:20, 10:20] = 2
    features = torch.randn(1, 3, 30, 30, generator=torch.Generator().manual_seed(1))
    near = torch.from_numpy(maximum_filter((labels == 2).numpy(), [1, 7, 7], mode="constant")) & (labels == 0)
    for mask, mean in ((labels == 2, distance), (near, 0.0)):
        own = features[0][:, mask[0]]
        features[0][:, mask[0]] = (own - own.mean(1, keepdim=True)) / own.std(1, keepdim=True, correction=0) + mean
    moments.add(features, labels, torch.ones_like(labels, dtype=torch.bool), 2)
    weight, offset = moments.discriminant(0)
    assert torch.allclose(weight, torch.full((3,), distance / 1.001, dtype=torch.float64), rtol=0.01)
    assert (weight.sum() * distance + offset).item() == pytest.approx(3 * distance**2 / 2 / 1.001, rel=0.01)


def test_a_class_without_unlabelled_voxels_around_it_is_told_from_the_background():
    moments, labels = Moments(1, 2), torch.zeros(1, 20, 20, dtype=torch.int64)
    labels[0, 2:12, 2:12], labels[0, 6:8, 6:8] = 1, 2  # an old class, which the labels show, encloses the new one
    features = torch.randn(1, 2, 20, 20, generator=torch.Generator().manual_seed(0)) + 4.0 * (labels == 2)
    moments.add(features, labels, torch.ones_like(labels, dtype=torch.bool), 2)
    background, own = (features[0][:, labels[0] == c].double().mean(1) for c in (0, 2))
    weight, offset = moments.discriminant(0)
    assert (weight @ background + offset).item() == pytest.approx(-MARGIN, rel=1e-3)
    assert (weight @ own + offset).item() == pytest.approx(MARGIN, rel=1e-3)


def test_a_class_that_is_not_seen_at_a_scale_starts_from_the_background_there():
    heads = {"decoder.seg_layers.0.weight": torch.randn(2, 3, 1, 1), "decoder.seg_layers.0.bias": torch.randn(2)}
    moments, labels = Moments(2, 3), torch.zeros(1, 8, 8, dtype=torch.int64)
    labels[0, :3, :3] = 3
    moments.add(torch.randn(1, 3, 8, 8), labels, torch.ones_like(labels, dtype=torch.bool), 2)
    found, missing = imprinted_heads(heads, [moments])
    assert missing == {0}
    weight, bias = found.values()
    balanced = widen_heads(heads, 2)
    assert torch.equal(weight[2], heads["decoder.seg_layers.0.weight"][0])
    assert bias[2] == balanced["decoder.seg_layers.0.bias"][2]
    assert torch.equal(bias[:2], heads["decoder.seg_layers.0.bias"])
    assert not torch.equal(weight[3], weight[0])
    assert imprinted_heads(heads, [Moments(1, 3)])[1] == {0}


def test_a_class_that_the_pass_does_not_see_is_said(toy, tmp_path, capsys):
    names = plan_toy(tmp_path, first_trainer=PGCD, hyperparameters={"new_class_start": "imprinted"})
    train(PGCD, names[0])
    trainer = make_trainer(LWF, names[1])
    trainer.max_pass_cases = 1
    table = trainer.label_table
    table[table == 4] = 0  # no case of the pass shows the cyst
    type(trainer).label_table, before = property(lambda _self: table), type(trainer).label_table
    try:
        trainer.initialize()
        trainer._begin_step()
    finally:
        type(trainer).label_table = before
        del type(trainer).label_table
    assert "Too few voxels of cyst to imprint every scale of the network" in capsys.readouterr().out
