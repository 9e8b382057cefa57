"""``nnunet_cil export``: a model that nnU-Net predicts with on a machine without this plug-in."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nnunet_cil import __version__
from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.files import parse_json, read_json, remove_left_over, temporary_folder, write_json
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import model_folder_name
from nnunet_cil.host.networks import check_network_classes
from nnunet_cil.host.plans_files import read_plans
from nnunet_cil.labels import predicted_numbers
from nnunet_cil.lineage import with_validation
from nnunet_cil.model_card import model_card
from nnunet_cil.model_changes import ModelChanges
from nnunet_cil.workflows.models.trained_model import check_network, final_checkpoints, refuse_paths

PLAIN_TRAINER = "nnUNetTrainer"

_NEEDED = ("channel_names", "modality", "labels", "regions_class_order", "file_ending", "overwrite_image_reader_writer")
"""The keys of dataset.json that prediction and ``extend`` read."""

_TOLD = ("name", "description", "reference", "release", "licence", "license", "citation", "numTraining")
"""The keys that say where the data come from. All others stay behind: they may name cases, which are patients' IDs."""


def export(model: Path, output: Path, *, zipped: bool = False, trusted: Sequence[str] = ()) -> Path:
    """Writes what prediction needs, under nnU-Net's own trainer name, with the lineage in dataset.json.

    No name of a case is written: plans lose the step's block, dataset.json all keys but those that are known to hold none.

    Args:
        model: the folder of a trained nnU-Net model, above the folds.
        output: takes ``DatasetXXX_NAME/nnUNetTrainer__PLANS__CONFIG``, as nnUNet_results does; with ``zipped`` the name
            of the archive, for ``nnUNetv2_install_pretrained_model_from_zip``.
        zipped: whether to write one archive.
        trusted: packages besides nnU-Net's own whose classes the plans may name.

    Returns:
        The model's folder, or the archive.

    Raises:
        CILError: not a model folder, no fold is trained, a network that nnU-Net's own trainer does not build, names that would
            lead elsewhere, or the target is there already.
    """
    from nnunet_cil.training.checkpoints import read_model_checkpoint

    checkpoints = final_checkpoints(model)
    plans = read_plans(model / "plans.json", "Give a model folder, with plans.json and fold_X.", "Restore the file.")
    plans.pop("cil", None)
    stored = read_dataset_json(model / "dataset.json", "Give a model folder, with dataset.json and fold_X.")
    dataset_json = {key: stored[key] for key in (*_NEEDED, *_TOLD) if key in stored}
    first = read_model_checkpoint(next(iter(checkpoints.values())))
    refuse_paths(model, plans, first)
    check_network_classes(model / "plans.json", plans, trusted)
    name = model_folder_name(PLAIN_TRAINER, plans["plans_name"], first["init_args"]["configuration"])
    model_name = Path(plans["dataset_name"]) / name
    final = _with_ending(output) if zipped else output / model_name
    remove_left_over(final.parent)
    if final.exists():
        raise CILError(f"{final} is there already. Remove it, or choose another place.")
    with _folder_of(final, output), temporary_folder(final.parent, "export") as aside:
        exported = aside / "results" / model_name
        origins = {f: _export_fold(file, exported / f, plans, dataset_json, trusted) for f, file in checkpoints.items()}
        write_json(exported / "plans.json", plans)
        provenance = {
            "version": __version__,
            **{key: {f: o[key] for f, o in origins.items()} for key in ("exported_from_sha256", "lineage")},
        }
        write_json(exported / "dataset.json", {**dataset_json, "nnunet_cil": provenance})
        if zipped:
            exported = Path(shutil.make_archive(str(aside / "model"), "zip", aside / "results"))
        exported.rename(final)
    return final


def exported_before(model: Path, name: str, output: Path, *, zipped: bool = False) -> Path | None:
    """Returns what ``export`` has made of exactly this model; None where nothing lies in its place.

    Args:
        model: the folder of the model; it need not be there yet.
        name: what ``export`` calls it, ``DatasetXXX_NAME/nnUNetTrainer__PLANS__CONFIG``.
        output: as of ``export``.
        zipped: as of ``export``.

    Raises:
        CILError: something else lies there, or the place is no folder.
        OSError: nothing can be written there.
    """
    final = _with_ending(output) if zipped else output / name
    if not final.exists():
        with _folder_of(final, output), temporary_folder(final.parent, "export"):  # before hours of training
            return None
    try:
        origin = _read_dataset_json(final, name).get("nnunet_cil")
        known = origin["exported_from_sha256"] if isinstance(origin, dict) else {}
        if known == {fold: file_sha256(file) for fold, file in final_checkpoints(model).items()}:
            return final
    except (CILError, OSError, ValueError, KeyError, zipfile.BadZipFile):  # not an export, or not of a trained model
        pass
    raise CILError(f"{final} is there already. Remove it, or choose another place.")


def _read_dataset_json(final: Path, name: str) -> dict[str, Any]:
    if final.is_dir():
        return read_json(final / "dataset.json", "")
    with zipfile.ZipFile(final) as archive:
        content = parse_json(archive.read(f"{name}/dataset.json"))
    return content if isinstance(content, dict) else {}


def _with_ending(output: Path) -> Path:
    return output if output.suffix == ".zip" else output.with_name(f"{output.name}.zip")


@contextmanager
def _folder_of(final: Path, output: Path) -> Iterator[None]:
    """Makes the folder of what is exported; where nothing comes into it, it goes again."""
    made = [folder for folder in final.parents if not folder.exists()]
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise CILError(f"{output} is no folder. Choose another place.") from error
    try:
        yield
    finally:
        with suppress(OSError):  # the first that is not empty
            for folder in made:
                folder.rmdir()


def _export_fold(
    file: Path, target: Path, plans: Mapping[str, Any], dataset_json: Mapping[str, Any], trusted: Sequence[str]
) -> dict[str, Any]:
    """Writes the fold's weights and model card; returns where they come from."""
    import torch

    from nnunet_cil.training.checkpoints import read_model_checkpoint, save_checkpoint
    from nnunet_cil.training.state import PROVENANCE_KEY, lineage_of

    checkpoint = read_model_checkpoint(file)
    check_network(file, checkpoint, plans, dataset_json, f"{file} cannot be exported", trusted)
    lineage = lineage_of(checkpoint)
    if lineage:
        lineage = (*lineage[:-1], with_validation(lineage[-1], file.parent, dataset_json["labels"], plans))
    origin = {
        "exported_from_sha256": file_sha256(file),
        "lineage": [record.to_json() for record in lineage],
    }
    described = {**dataset_json, PROVENANCE_KEY: origin}
    target.mkdir(parents=True)
    kept = {
        "network_weights": checkpoint["network_weights"],
        "trainer_name": PLAIN_TRAINER,
        "init_args": {
            **{
                key: value
                for key, value in checkpoint["init_args"].items()
                if key in ("configuration", "fold") or isinstance(value, torch.device)
            },
            "plans": dict(plans),
            "dataset_json": described,
        },
        "inference_allowed_mirroring_axes": checkpoint.get("inference_allowed_mirroring_axes"),
    }
    save_checkpoint(kept, target / file.name)
    if lineage:
        changes, numbers = ModelChanges.read(file.parent), predicted_numbers(dataset_json)
        card = model_card(lineage, lineage[-1].dice, PLAIN_TRAINER, changes, numbers)
        (target / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    return origin
