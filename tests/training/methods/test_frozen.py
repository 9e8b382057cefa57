"""nnUNetTrainerFrozen: nothing of the old network moves, and the new channels learn."""

import pytest
import torch
from toy import ORGANS, called, checkpoint, make_batch, make_setup, plan_toy, set_norm, train

from nnunet_cil.networks.architectures import is_head
from nnunet_cil.training.methods.frozen import FrozenLoss
from nnunet_cil.training.methods.mib import MiBLoss

FROZEN = "nnUNetTrainerFrozen"


def test_the_loss_is_mibs_segmentation_without_a_gradient_for_old_logits():
    torch.manual_seed(0)
    logits = [torch.randn(2, 5, 4, 3, requires_grad=True) for _ in range(2)]
    targets = [torch.tensor([0, 3, 4, 5])[torch.randint(0, 4, (2, 1, 4, 3))] for _ in range(2)]
    setup = make_setup(3, 5, (0.7, 0.3), mib_weight=1.0)
    mib = MiBLoss(setup)
    expected = mib.over_scales(mib.unbiased_segmentation, mib.log_probs(logits), targets, make_batch())
    found = called(FrozenLoss(setup), logits, targets)
    assert found.item() == pytest.approx(expected.item())
    for own, full in zip(torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits), strict=True):
        assert own[:, :3].abs().sum() == 0 < full[:, :3].abs().sum()
        assert torch.allclose(own[:, 3:], full[:, 3:])


@pytest.mark.parametrize("norm", ["InstanceNorm", "BatchNorm"])
def test_old_weights_stay_to_the_bit_and_new_ones_learn(toy, tmp_path, norm):
    """With a weight decay that would be seen at once. The lowest scale, the first layer, has no loss in nnU-Net."""
    own = {"optimizer": "AdamW", "num_iterations_per_epoch": 30, "initial_lr": 0.05, "weight_decay": 0.5}
    steps = [{"classes": ORGANS[:2]}, {"classes": ORGANS[2:], "training": own}]
    set_norm(toy, norm)
    names = plan_toy(tmp_path, steps)
    before = checkpoint(train(FROZEN, names[0]))["network_weights"]
    trainer = train(FROZEN, names[1])
    content = checkpoint(trainer)
    after = content["network_weights"]
    for name, tensor in after.items():
        of_head = is_head(name)
        assert torch.equal(tensor[:3] if of_head else tensor, before[name]), name
        if name.endswith("bias") and of_head and not name.startswith("decoder.seg_layers.0"):
            assert tensor[3:].abs().min() > 0, name  # where a fresh layer starts
    assert len(content["optimizer_state"]["state"]) == 2  # weight and bias

    image = next(trainer.training_pass().tiles()).images
    trainer.set_deep_supervision_enabled(False)
    with torch.no_grad():
        own, teacher = (n.double().eval()(image.double()) for n in (trainer.network, trainer.teacher.network))
    torch.testing.assert_close(own[:, :3], teacher, atol=1e-12, rtol=0)  # some CPUs round otherwise for more channels
    first, last = trainer.logger.get_value("train_losses", None)
    assert last < first - 0.03
    assert trainer.logger.get_value("dice_per_class_or_region", None)[-1][3] > 0.1
