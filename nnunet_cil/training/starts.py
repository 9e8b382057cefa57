"""The networks with which a step begins: the teacher, and the student's first weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nnunet_cil.errors import CILError
from nnunet_cil.networks.features import HeadReader
from nnunet_cil.networks.heads import joined_heads, widen_heads
from nnunet_cil.networks.imprinting import Moments, imprinted_heads
from nnunet_cil.networks.inputs import see_channels, see_sums, spread_inputs, widen_inputs
from nnunet_cil.networks.teacher import Teacher, autocast
from nnunet_cil.training.cascade_inputs import old_input_groups, old_inputs, shown_labels
from nnunet_cil.training.catalogue import check_place_of_inputs
from nnunet_cil.training.previous_step import PreviousStep
from nnunet_cil.training.step_loss import resized

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL


def build_teacher(trainer: nnUNetTrainerCIL, weights: Mapping[str, Tensor]) -> Teacher:
    """Builds the teacher of a step from the previous step's weights. In a cascade it sees the channels that it was trained on."""
    network = _previous_network(trainer)
    network.load_state_dict(weights)
    if trainer.is_cascaded and trainer.step_plan.has_regions:
        see_sums(network, _region_inputs(trainer))
    elif trainer.is_cascaded:
        see_channels(network, _old_inputs(trainer))
    return Teacher(network, trainer.device, compiled=trainer._do_i_compile())


def num_writes(network: nn.Module) -> int:
    """Returns how often a network's weights were written since they were made: loading others writes each once more."""
    return sum(parameter._version for parameter in network.parameters())


def refuse_pretrained(trainer: nnUNetTrainerCIL) -> None:
    """Refuses nnU-Net's ``-pretrained_weights`` in a step after the first, which would drop them without a word.

    Raises:
        CILError: the weights are not those that the trainer initialised.
    """
    if num_writes(trainer.bare_network) != trainer.num_initial_writes:
        raise CILError(
            f"-pretrained_weights is for step 0: step {trainer.step_plan.step} of {trainer.step_plan.schedule} starts from the "
            "model of the step before. Leave it out."
        )


def previous_architecture(trainer: nnUNetTrainerCIL) -> dict[str, Tensor]:
    """Returns the state dict that the previous step's model must have, without values."""
    with torch.device("meta"):
        return _previous_network(trainer).state_dict()


def start_weights(trainer: nnUNetTrainerCIL, previous: PreviousStep) -> dict[str, Tensor]:
    """Returns the weights with which the student begins, by the trainer's ``new_class_start``.

    Args:
        trainer: of the step, with its teacher.
        previous: the model that the teacher is.

    Returns:
        A state dict with channels for the new classes, in a cascade with inputs for them; the same on every rank.
    """
    weights = _with_new_classes(trainer, previous)
    if trainer.is_cascaded and trainer.step_plan.has_regions:
        return spread_inputs(weights, _input_names(trainer), _region_inputs(trainer), trainer.num_input_channels)
    return widen_inputs(weights, trainer.bare_network.state_dict(), _old_inputs(trainer))


def _with_new_classes(trainer: nnUNetTrainerCIL, previous: PreviousStep) -> dict[str, Tensor]:
    """Returns the previous step's weights, with segmentation layers for the new classes."""
    weights, seed = previous.weights, int(previous.sha256[:8], 16)
    num_new = len(trainer.step_plan.new_classes)
    step = trainer.step_plan
    if step.has_regions:  # there is no background to start from
        return joined_heads(weights, _fresh_weights(trainer, seed), step.old_channels)
    if trainer.new_class_start == "balanced" or num_new == 0:
        return widen_heads(weights, num_new)
    if trainer.new_class_start == "apart":
        return widen_heads(weights, num_new, noise=trainer.new_class_noise, seed=seed)
    if trainer.new_class_start == "imprinted":
        return _imprinted(trainer, weights)
    return joined_heads(weights, _fresh_weights(trainer, seed))


def old_weights_at_start(trainer: nnUNetTrainerCIL) -> dict[str, Tensor]:
    """Returns the weights with which the step began, for the channels that the teacher has; new ones may follow them."""
    assert trainer.teacher is not None
    weights = trainer.teacher.network.state_dict()
    if trainer.is_cascaded:
        check_place_of_inputs(type(trainer), trainer.step_plan)
    if trainer.new_class_start in ("balanced", "apart") and not trainer.step_plan.has_regions:
        return widen_heads(weights, len(trainer.step_plan.new_classes))
    return weights


def _fresh_weights(trainer: nnUNetTrainerCIL, seed: int) -> dict[str, Tensor]:
    """Returns the state dict of a network as nnU-Net initialises it, with channels for all classes of the step."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPU, too
        return _network(trainer, len(_old_inputs(trainer)), trainer.step_plan.num_channels).state_dict()


def _previous_network(trainer: nnUNetTrainerCIL) -> nn.Module:
    return _network(trainer, len(_old_inputs(trainer)), trainer.step_plan.num_old_channels)


def _old_inputs(trainer: nnUNetTrainerCIL) -> list[int]:
    """Returns the channels that the previous step's network sees: those of the images, in a cascade also of old labels."""
    if not trainer.is_cascaded:
        return list(range(trainer.num_input_channels))
    num_images = trainer.num_input_channels - len(shown_labels(trainer.step_plan))
    return [*range(num_images), *(num_images + channel for channel in old_inputs(trainer.step_plan))]


def _region_inputs(trainer: nnUNetTrainerCIL) -> list[list[int]]:
    """Returns, of each channel that the previous step's network sees, the channels of this one's that show the same."""
    num_images = trainer.num_input_channels - len(shown_labels(trainer.step_plan))
    groups = [[num_images + channel for channel in group] for group in old_input_groups(trainer.step_plan)]
    return [*([channel] for channel in range(num_images)), *groups]


def _input_names(trainer: nnUNetTrainerCIL) -> list[str]:
    """Returns the names of the weights that see a network's input: those that differ with the number of its channels."""
    with torch.device("meta"):
        one, other = (_network(trainer, number, 1).state_dict() for number in (1, 2))
    return [name for name in one if one[name].shape != other[name].shape]


def _network(trainer: nnUNetTrainerCIL, num_inputs: int, num_outputs: int) -> nn.Module:
    """Builds nnU-Net's network without deep supervision."""
    network: nn.Module = trainer.build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, num_inputs, num_outputs, False
    )
    return network


def _imprinted(trainer: nnUNetTrainerCIL, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Imprints the new channels in one pass over the step's training cases, and says which classes it does not see."""
    trainer.print_to_log_file("Imprinting the new classes from the teacher's features...")
    started, missing = imprinted_heads(weights, head_moments(trainer))
    if names := ", ".join(trainer.step_plan.new_classes[c] for c in sorted(missing)):
        trainer.say(
            f"Too few voxels of {names} to imprint every scale of the network; there the class starts from the background."
        )
    return started


@torch.no_grad()
def head_moments(trainer: nnUNetTrainerCIL) -> list[Moments]:
    """Returns the moments of the teacher's features before each segmentation layer, over the training cases of all ranks."""
    assert trainer.teacher is not None
    network, device, num_old = trainer.teacher.network, trainer.device, trainer.step_plan.num_old_channels
    reader = HeadReader(network)
    moments = [Moments(len(trainer.step_plan.new_classes), n) for n in reader.num_features]
    for tiles in trainer.training_pass().batches():
        parts = ([t.images for t in tiles], [t.labels for t in tiles], [t.valid for t in tiles])
        images, labels, valid = (torch.cat(part).to(device) for part in parts)
        with reader.reading(), autocast(device):
            network(images)
            inputs = reader.take()
        for of_scale, features in zip(moments, inputs, strict=True):
            size = features.shape[2:]
            at_scale, counts = (t if t.shape[1:] == size else resized(t[:, None], size)[:, 0] for t in (labels, valid))
            of_scale.add(features, at_scale, counts, num_old)
    reader.remove()
    if trainer.ranks.size > 1:
        for of_scale in moments:
            of_scale.sum_over_ranks(device)
    return moments
