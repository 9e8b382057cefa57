"""A step on each device that nnU-Net knows. No GPU is needed: a tensor class stands in for Apple's."""

from contextlib import nullcontext

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from toy import make_setup, make_trainer, plan_toy, train

from nnunet_cil.networks.teacher import autocast
from nnunet_cil.training.methods.pseudo_label import RegionPseudoLabelLoss
from nnunet_cil.training.passes import final_prototypes
from nnunet_cil.training.step_loss import resized

MPS = torch.device("mps")


class OnMPS(torch.Tensor):
    """A tensor in memory that says it is on MPS, and refuses what PyTorch refuses there."""

    device = property(lambda self: MPS)

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (torch.Tensor.numpy, torch.Tensor.double, F.interpolate):
            raise TypeError(f"{function} is not on MPS")
        found = super().__torch_function__(function, types, args, kwargs or {})
        for tensor in found if isinstance(found, tuple) else (found,):
            if isinstance(tensor, OnMPS) and tensor.dtype == torch.float64:
                raise TypeError("MPS has no float64")
        return found


class Moves(TorchFunctionMode):
    """Lets tensors that are moved to MPS, or made there, be ``OnMPS``; moved to the CPU they are plain again."""

    def __torch_function__(self, function, _types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        devices = [a for a in (*args, kwargs.get("device")) if isinstance(a, torch.device)]
        to_mps, to_cpu = MPS in devices, function is torch.Tensor.cpu or torch.device("cpu") in devices
        args = tuple(torch.device("cpu") if isinstance(a, torch.device) else a for a in args)
        if "device" in kwargs:
            kwargs["device"] = "cpu"
        found = function(*args, **kwargs)
        if not isinstance(found, torch.Tensor):
            return found
        if to_mps and found.dtype == torch.float64:
            raise TypeError("MPS has no float64")
        return found.as_subclass(OnMPS) if to_mps else found.as_subclass(torch.Tensor) if to_cpu else found


def test_autocast_is_nnunets_mixed_precision_on_cuda_nothing_elsewhere():
    with pytest.warns(UserWarning, match="CUDA is not available"):
        mixed = autocast(torch.device("cuda", 0))
    assert isinstance(mixed, torch.autocast)
    assert mixed.device == "cuda"
    for device in ("cpu", "mps"):
        assert type(autocast(torch.device(device))) is nullcontext


def test_label_maps_are_resized_as_nnunet_resizes_them():
    torch.manual_seed(0)
    for now in (5, 8, 16, 20, 33):
        for then in (1, 2, 3, 4, 5, 8, 10, 16, 33, 40):
            labels = torch.randint(0, 9, (2, 1, now, now + 1, 7), dtype=torch.int16)
            size = torch.Size([then, then, 7])
            expected = F.interpolate(labels.float(), size, mode="nearest-exact").to(labels.dtype)
            assert torch.equal(resized(labels, size), expected), (now, then)
            assert torch.equal(
                resized(labels > 4, size), F.interpolate((labels > 4).float(), size, mode="nearest-exact") > 0
            )


def test_the_teachers_regions_are_filled_in_at_every_scale_on_mps():
    torch.manual_seed(0)
    masks, scales = torch.rand(2, 1, 9, 8, 8) > 0.5, [torch.zeros(2, 3, n, n - 1, n - 1) > 0 for n in (9, 5)]
    loss = RegionPseudoLabelLoss(make_setup(1), torch.nn.Identity())
    with Moves():
        filled = loss.pseudo_labelled([t.as_subclass(OnMPS) for t in scales], masks.as_subclass(OnMPS))
    expected = F.interpolate(masks.float(), (5, 4, 4), mode="nearest-exact") > 0
    assert torch.equal(filled[1][:, :1].as_subclass(torch.Tensor), expected)
    assert not filled[1][:, 1:].any()


@pytest.mark.parametrize("name", ["nnUNetTrainerPGCD", "nnUNetTrainerMiB"])
def test_a_step_trains_and_collects_prototypes_on_mps(toy, tmp_path, name):
    names = plan_toy(tmp_path, first_trainer="nnUNetTrainerPGCD")
    train("nnUNetTrainerPGCD", names[0])
    trainer = make_trainer(name, names[1])
    trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    with Moves():
        trainer.device = trainer.teacher.device = MPS
        trainer.prototypes = trainer.prototypes.to(MPS)
        loss = trainer.train_step(batch)["loss"]
        assert loss > 0
        bank, _ = final_prototypes(trainer)
        assert type(bank.counts) is OnMPS
        stored = bank.state_dict()
    assert stored["counts"].dtype == torch.float64


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_batches_are_pinned_for_cuda_only(toy, tmp_path, monkeypatch, device):
    from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as host

    made = []

    def augmenter(*_arguments, pin_memory, **_others):
        made.append(pin_memory)
        return iter([None])

    trainer = make_trainer("nnUNetTrainerPGCD", plan_toy(tmp_path)[0])
    trainer.initialize()
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")
    monkeypatch.setattr(host, "NonDetMultiThreadedAugmenter", augmenter)
    trainer.device = torch.device(device)
    trainer.get_dataloaders()
    assert made == [device == "cuda"] * 2
