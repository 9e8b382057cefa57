"""The models that nnU-Net's tools are to compare, checked for what these tools do not check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.errors import CILError, few_names
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import dataset_name, model_folder_name, nnunet_folder
from nnunet_cil.host.plans_files import configuration_settings, read_plans, reader_of
from nnunet_cil.step_plans import StepPlan, read_step_plan
from nnunet_cil.workflows.model_fold import ModelFold, StepModel


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which models nnU-Net's tools are asked for, in their own words.

    Attributes:
        dataset: ID or name.
        trainers: class names.
        configurations: nnU-Net's.
        plans: names of step plans.
        folds: that are put together.
    """

    dataset: str
    trainers: tuple[str, ...]
    configurations: tuple[str, ...]
    plans: tuple[str, ...]
    folds: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class ComparedModels:
    """Models of steps whose classes have the same numbers.

    Attributes:
        models: at least one, in nnU-Net's order.
        folds: that are put together.
        preprocessed: nnU-Net's folder of one of the configurations.
    """

    models: tuple[StepModel, ...]
    folds: tuple[int, ...]
    preprocessed: Path

    @property
    def plan(self) -> StepPlan:
        """The step of the first model: the others know the same classes by the same numbers."""
        return self.models[0].plan

    @property
    def dataset(self) -> str:
        """nnU-Net's name of the data set."""
        return self.models[0].dataset

    @property
    def model_folds(self) -> list[ModelFold]:
        """Every model in every fold."""
        return [model.fold(fold) for model in self.models for fold in self.folds]

    @property
    def validated_files(self) -> list[str]:
        """The names of all files of labels that nnU-Net's final validations have predicted."""
        return sorted({name for fold in self.model_folds for name in _predictions(fold)})

    @classmethod
    def read(cls, selection: Selection, *, averages: bool) -> ComparedModels:
        """Finds the models, and refuses what would give wrong numbers.

        Args:
            selection: which.
            averages: whether the tool averages the models' probabilities.

        Raises:
            CILError: a model is not there, not of a step, or not validated; models number their classes differently; or the
                labels do not show every class in every case.
        """
        models, preprocessed = _models(selection)
        found = cls(models=tuple(models), folds=selection.folds, preprocessed=preprocessed)
        _refuse_other_numbers(models)
        refuse_partial_labels(found.plan, found.dataset)
        for fold in found.model_folds:
            _check_validated(fold, needs_probabilities=averages and len(models) > 1)
        return found


def _models(selection: Selection) -> tuple[list[StepModel], Path]:
    """Returns the models that are asked for, without configurations that their plans do not have, as nnU-Net does it."""
    dataset = dataset_name(selection.dataset)
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    dataset_json = read_dataset_json(folder / "dataset.json")
    plans = {}
    for name in selection.plans:
        again = "Name the plans of a step with -p."
        plans[name] = read_plans(folder / f"{name}.json", again, again)
    steps = {name: read_step_plan(content, dataset_json) for name, content in plans.items()}
    models, data = [], []
    for trainer in selection.trainers:
        for configuration in selection.configurations:
            for name in selection.plans:
                if configuration not in plans[name]["configurations"]:
                    continue
                model = nnunet_folder("nnUNet_results") / dataset / model_folder_name(trainer, name, configuration)
                if not model.is_dir():
                    raise CILError(
                        f"{model} is not there. Train it in all folds, or name the models with -tr, -c and -p."
                    )
                models.append(
                    StepModel(
                        trainer=trainer,
                        step=steps[name].step,
                        configuration=configuration,
                        plans_name=name,
                        folder=model,
                        plan=steps[name],
                        reader_name=reader_of(plans[name]),
                    )
                )
                data.append(folder / configuration_settings(plans[name], configuration)["data_identifier"])
    if not models:
        raise CILError(f"No plans among {few_names(list(selection.plans))} have a configuration that -c names.")
    return models, data[0]


def _refuse_other_numbers(models: Sequence[StepModel]) -> None:
    """Refuses models that know different classes, or by different numbers: nnU-Net compares and averages by number."""
    first = models[0]
    for other in models[1:]:
        if _numbering(other.plan) != _numbering(first.plan):
            ours, theirs = (", ".join(model.plan.model_classes) for model in (first, other))
            raise CILError(
                f"{first.folder.name} numbers its classes {ours}, but {other.folder.name} {theirs}. nnU-Net compares by number. "
                "Compare them with 'nnunet_cil evaluate', which goes by name."
            )


def _numbering(plan: StepPlan) -> tuple[object, ...]:
    return plan.labels, plan.model_classes, plan.regions_class_order


def refuse_partial_labels(plan: StepPlan, dataset: str) -> None:
    """Refuses references that do not show every class in every case: nnU-Net would score the others as wrongly found.

    Raises:
        CILError: says which.
    """
    if missing := [name for name in plan.seen_classes if name not in plan.evaluated_classes]:
        what = f"{dataset} has no labels of {few_names(missing)}"
    elif plan.labelled:
        what = f"the labels of {len(plan.labelled)} cases do not show all of them"
    else:
        return
    raise CILError(
        f"nnU-Net's tools score every class in every case, but {what}. Score with 'nnunet_cil evaluate', or an extended model "
        "with 'nnunet_cil compare': they leave out what is not labelled."
    )


def _check_validated(model: ModelFold, *, needs_probabilities: bool) -> None:
    """Refuses a model whose validation cases are not predicted by the final checkpoint, or without probabilities.

    Raises:
        CILError: with the command that predicts them.
    """
    model.check_trained()
    options = ["--val", *(["--npz"] if needs_probabilities else [])]
    if not model.is_validated:
        raise CILError(
            f"{model.folder / 'validation'} does not hold the predictions of the final checkpoint. Run "
            f"'{model.train_command(*options)}'."
        )
    if needs_probabilities and (missing := model.cases_without_probabilities):
        raise CILError(
            f"{model.folder / 'validation'} holds no probabilities of {few_names(missing)}, which ensembles need. Run "
            f"'{model.train_command(*options)}', or add --disable_ensembling."
        )


def _predictions(model: ModelFold) -> list[str]:
    """Returns the names of the files of labels that nnU-Net's final validation has left."""
    ending = str(read_dataset_json(model.model.folder / "dataset.json")["file_ending"])
    return [file.name for file in (model.folder / "validation").glob(f"[!.]*{ending}")]
