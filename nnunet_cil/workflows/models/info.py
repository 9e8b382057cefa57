"""``nnunet_cil info``: what a model knows, where it learnt it, and how its prototypes are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil.content import file_sha256
from nnunet_cil.evaluation.tables import Table
from nnunet_cil.labels import has_regions, numbers_in, predicted_numbers
from nnunet_cil.lineage import StepRecord
from nnunet_cil.workflows.models.trained_model import final_checkpoints

if TYPE_CHECKING:
    from torch import Tensor

    from nnunet_cil.networks.prototype_bank import PrototypeBank

_MOST_PAIRS = 15
"""The number of prototypes up to which a table of their similarities can be read."""


def describe(model: Path) -> str:
    """Describes a model as text: classes with their origin, the steps with their hashes, prototypes.

    Args:
        model: nnU-Net's folder of a trained model (its first fold is taken), or a checkpoint.

    Raises:
        CILError: neither.
    """
    from nnunet_cil.training.checkpoints import foreground_classes, read_model_checkpoint
    from nnunet_cil.training.state import StepState, lineage_of

    file = model if model.is_file() and model.suffix != ".zip" else next(iter(final_checkpoints(model).values()))
    checkpoint = read_model_checkpoint(file)
    state = StepState.from_checkpoint(checkpoint)
    classes = foreground_classes(checkpoint)
    lineage = lineage_of(checkpoint)
    parts = [
        f"{file}\nSHA-256 {file_sha256(file)}\ntrainer {checkpoint.get('trainer_name')}, configuration "
        f"{checkpoint['init_args']['configuration']}, {_epochs(checkpoint)}",
        _classes(checkpoint["init_args"]["dataset_json"], lineage).markdown(),
    ]
    if lineage:
        parts.append(_steps(lineage).markdown())
    else:
        parts.append("Not trained with nnunet_cil: where its classes come from is not recorded.")
    if state is not None and state.stray_free:
        parts.append(f"Without stray regions, as their labels showed: {', '.join(state.stray_free)}.")
    if state is None or state.prototypes is None:
        parts.append("No prototypes: a step that continues from it takes them from its confident predictions.")
    else:
        bank, names = state.prototypes, ["background", *classes]
        if has_regions(checkpoint["init_args"]["dataset_json"]["labels"]):
            names = [name for region in classes for name in (region, f"outside of {region}")]
        parts.append(_prototypes(names, bank).markdown())
        if len(bank.counts) <= _MOST_PAIRS:
            parts.append(_similarities(names, bank).markdown())
    return "\n\n".join(parts)


def _epochs(checkpoint: Mapping[str, Any]) -> str:
    epochs = checkpoint.get("current_epoch")
    return f"{epochs} epochs" if isinstance(epochs, int) else "exported"


def _classes(dataset_json: Mapping[str, Any], lineage: Sequence[StepRecord]) -> Table:
    """Tells of each class its label in a prediction and where it comes from; of a region also the labels that it holds."""
    labels = dataset_json["labels"]
    of_regions = has_regions(labels)
    origin = {name: record for record in lineage for name in record.classes}
    body = []
    for name, label in predicted_numbers(dataset_json).items():
        record = origin.get(name)
        where = [str(record.step), record.dataset, record.trainer, record.date[:10]] if record else [""] * 4
        held = [", ".join(map(str, numbers_in(labels[name])))] if of_regions else []
        body.append([str(label), name, *held, *where])
    return Table(["label", "class", *(["region"] if of_regions else []), "step", "data set", "trainer", "date"], body)


def _steps(lineage: Sequence[StepRecord]) -> Table:
    body = []
    for r in lineage:
        versions = ", ".join(f"{name} {number}" for name, number in r.versions.items())
        body.append(
            [
                str(r.step),
                r.schedule,
                ", ".join(r.refined),
                r.plans,
                r.cases_text,
                versions,
                r.previous_sha256 or "",
            ]
        )
    return Table(["step", "schedule", "refined", "plans", "cases", "versions", "continued from (SHA-256)"], body)


def _prototypes(names: Sequence[str], bank: PrototypeBank) -> Table:
    """Tells of each prototype its norm, number of voxels and nearest class by cosine similarity; blank where there is none."""
    import torch

    similarity = _cosines(bank).masked_fill(~bank.known[None, :], -2).fill_diagonal_(-2)
    body = []
    for index, name in enumerate(names[: len(bank.counts)]):
        if not bank.known[index]:
            body.append([name, "0", "", "", ""])
            continue
        nearest = int(similarity[index].argmax())
        others = [names[nearest], f"{similarity[index, nearest]:.3f}"] if similarity[index, nearest] > -2 else ["", ""]
        norm = float(torch.linalg.vector_norm(bank.prototypes[index]))
        body.append([name, f"{bank.counts[index]:.0f}", f"{norm:.3g}", *others])
    return Table(["prototype", "voxels", "norm", "nearest", "cosine similarity"], body)


def _similarities(names: Sequence[str], bank: PrototypeBank) -> Table:
    """Tells the cosine similarity of every two prototypes; blank where one is missing."""
    names, cosines, known = names[: len(bank.counts)], _cosines(bank), bank.known
    body = [
        [name, *(f"{cosines[i, j]:.3f}" if known[i] and known[j] else "" for j in range(len(names)))]
        for i, name in enumerate(names)
    ]
    return Table(["cosine similarity", *names], body)


def _cosines(bank: PrototypeBank) -> Tensor:
    from torch.nn.functional import normalize

    unit = normalize(bank.prototypes.double(), dim=1)
    return unit @ unit.T
