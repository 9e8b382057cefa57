"""``nnunet_cil extend --advise``: three ways to one organ more, what each needs and gives, for a model and a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunet_cil.evaluation.tables import Table
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import nnunet_folder, raw_dataset_folder
from nnunet_cil.host.plans_files import reader_of
from nnunet_cil.host.raw_dataset import read_raw
from nnunet_cil.schedule import DEFAULT_EPOCHS, check_training_settings
from nnunet_cil.workflows.models.extend_checks import chosen_folds, new_classes
from nnunet_cil.workflows.models.extension import ExtendOptions, Stage
from nnunet_cil.workflows.models.model_stages import read_stages, stages_to_train

_STEP_COST = 1.4
"""The time of an iteration of PGCD over nnU-Net's own (docs/explanation/what-it-costs.md)."""

_MEASURED = (
    "Measured with small networks and an earlier PGCD, one training each: extended, old organs kept a mean Dice of 0.848 of "
    "0.841 (heart MR) and 0.689 of 0.683 (head-and-neck CT), and the new one had 0.886 and 0.844; in a model of its own, as "
    "long, 0.855 and 0.849. Joint training had 0.786 in the mean of five organs, three steps of an earlier PGCD 0.762. Where the "
    "new images ended before the old organ (hippocampus MR), today's kept 0.389 of 0.885 of it; two models, the old one's "
    "classes first, all. On a GPU and at nnU-Net's own size: not measured yet."
)


def advise(model_folder: Path, dataset: str | int, options: ExtendOptions) -> str:
    """Returns three ways as a table, and a sentence on which to take. Nothing is written.

    Args:
        model_folder: of the model in use.
        dataset: nnU-Net's ID or name of a raw data set.
        options: as of ``extend``.

    Raises:
        CILError: model, data set or training settings cannot be read, or there is nothing to learn.
    """
    check_training_settings(options.training, "--training")
    models = read_stages(model_folder, options.trusted)
    model = models[-1]
    folder = raw_dataset_folder(dataset)
    dataset_json = read_dataset_json(folder / "dataset.json")
    labels = dataset_json["labels"]
    learnt = new_classes(model, folder.name, labels, classes=options.classes, refine=options.refine) or options.refine
    raw = read_raw(folder, dataset_json, reader_of(model.plans))
    cases = len(raw.cases)
    target = nnunet_folder("nnUNet_preprocessed") / folder.name
    stages = stages_to_train(models, chosen_folds(model, options.folds), raw, target)
    unlabelled = [name for name in model.classes if name not in labels]
    num_epochs = options.training.get("num_epochs", DEFAULT_EPOCHS)
    time = f"{_STEP_COST * num_epochs / DEFAULT_EPOCHS:.2g}"
    new = _few(learnt)
    everything = f"{_few(model.classes)} and {new}, in the old images and in these {cases}"
    table = Table(
        ["", "extend", "a second model", "train again"],
        [
            ["labels needed", f"{new} in {cases} images", f"{new} in {cases} images", everything],
            ["old images needed", "no", "no", "yes"],
            ["training a fold (nnU-Net's own length = 1)", time, "1", "1"],
            *_trainings(stages),
            ["networks at prediction", *(str(number * len(stages)) for number in (1, 2, 1))],
            ["old organs", "may change: 'nnunet_cil compare' tells", "do not change", "may change"],
            ["where two models disagree", "there is one", "you decide", "there is one"],
        ],
        num_labels=4,
    )
    return f"{table.markdown()}\n\n{_verdict(folder.name, unlabelled)}\n\n{_MEASURED}"


def _trainings(stages: Sequence[Stage]) -> list[list[str]]:
    """Returns the row of a cascade's trainings: before it come those of all folds, for plain nnU-Net, too."""
    counts = ", then ".join(f"{len(stage.folds)} of {stage.model.configuration}" for stage in stages)
    return [["trainings", *[counts] * 3]] if len(stages) > 1 else []


def _verdict(dataset: str, unlabelled: Sequence[str]) -> str:
    """Says which way to take."""
    if not unlabelled:
        return (
            f"{dataset} labels every class of the model, too: train again on it, with the old images where you have them. "
            "Extend where the old images are gone and the model has seen many more."
        )
    return (
        f"{dataset} does not label {_few(unlabelled)}. Extend, unless no old organ may change at all, or its images do not show "
        "one (then a second model), or you have the old images and can label everything (then train again)."
    )


def _few(names: Sequence[str]) -> str:
    """Returns up to four names, and how many more there are."""
    more = len(names) - 4
    return ", ".join(names[:4]) + (f" and {more} more" if more > 0 else "")
