"""The teacher's segmentation of whole training volumes, which patches carry as those of nnU-Net's cascades do."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor, nn
from tqdm import tqdm

from nnunet_cil.content import file_sha256
from nnunet_cil.files import json_sha256, read_json_list, temporary_folder, write_json
from nnunet_cil.host.folders import check_room
from nnunet_cil.losses.prototypes import confidence_sums
from nnunet_cil.networks.teacher import Teacher
from nnunet_cil.nnunet_files import DATA_ENDINGS
from nnunet_cil.training.passes import TrainingPass
from nnunet_cil.training.previous_step import PreviousStep
from nnunet_cil.training.stacked_maps import StackedMaps, network_input
from nnunet_cil.training.volumes.batched_predictor import BatchedPredictor
from nnunet_cil.training.volumes.store import Claim, VolumeStore
from nnunet_cil.training.volumes.stray_regions import stray_regions

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

NOT_SEGMENTED = 32767
"""The value of every voxel of a case that was not segmented; as a label it survives nnU-Net's augmentation."""

_TILE_STEP = 0.75
"""Distance of two patches of the sliding window, in patches. nnU-Net's 0.5 takes longer, and its Dice is no higher; without
Gaussian weights it is lower by 0.03 to 0.08 (benchmarks/notebook/2026-11-29-below-the-floor.md)."""

_RECIPE_VERSION = 3
"""Counts the changes of this module that change a voxel."""

_LABELS_SHARE = 0.1
"""Largest share of a compressed case that its labels take, where they have no file of their own."""


Segmented = Callable[[Tensor, Collection[int], Collection[int]], Tensor]
"""logits (channels, *spatial), channels that the labels show, those without strays -> (*spatial) int16."""


def region_bits(logits: Tensor, labelled: Collection[int], stray_free: Collection[int]) -> Tensor:
    """Returns a teacher's regions as bits, (*spatial) int16, without those that the labels show; strays are left out."""
    bits = torch.zeros(logits.shape[1:], dtype=torch.int16, device=logits.device)
    for c in (c for c in range(len(logits)) if c not in labelled):
        mask = logits[c] > 0
        if c in stray_free:
            strays = stray_regions(mask.cpu().numpy().astype(np.int16), [1])
            mask &= ~torch.from_numpy(strays).to(mask.device)
        bits |= mask.to(torch.int16) << c
    return bits


def most_probable_classes(logits: Tensor, labelled: Collection[int], stray_free: Collection[int]) -> Tensor:
    """Returns a teacher's segmentation, (*spatial) int16, without classes that the labels show; strays get the next class."""
    if decided := [c for c in labelled if c < len(logits)]:
        logits = logits.index_fill(0, torch.tensor(decided, device=logits.device), -torch.inf)
    classes = logits.max(0).indices.to(torch.int16)  # on a CPU several times faster than argmax
    if stray_free:
        strays = torch.from_numpy(stray_regions(classes.cpu().numpy(), stray_free)).to(logits.device)
        others = logits[:, strays].scatter(0, classes[strays][None].long(), -torch.inf)
        classes[strays] = others.max(0).indices.to(torch.int16)
    return classes


def mean_confidences(logits: Tensor) -> list[float | None]:
    """Returns the mean probability of each class over the voxels where it is the most probable one; None where it is nowhere.

    Stray regions count, too: what is not there is often found in pieces. Slice by slice: probabilities of a whole volume would
    need as much memory as its logits.

    Args:
        logits: (K, *spatial), of classes that do not overlap.
    """
    sums = torch.zeros(2, len(logits), dtype=torch.float64)
    for own in logits.unbind(1):
        sums += confidence_sums(*own.float().softmax(0).flatten(1).max(0), len(logits))
    return [total / count if count else None for total, count in sums.T.tolist()]


class TeacherVolumes:
    """One segmentation a case, in the teacher's channels, in nnU-Net's format for preprocessed data.

    On a patch the teacher has little context, and sees augmented images. Whole volumes it segments as nnU-Net predicts them,
    with overlapping patches and Gaussian weights, without mirroring.
    """

    def __init__(self, folder: Path) -> None:
        """Takes the folder of a recipe (``VolumeStore.recipe_folder``)."""
        self.folder = folder
        self._folders: dict[str, Path] = {}

    def __contains__(self, case: str) -> bool:
        """Returns True if the case is segmented."""
        return case in self._folders and _has_file(self._folders[case], case) and self._confidences(case).is_file()

    def write(
        self,
        cases: TrainingPass,
        predictor: nnUNetPredictor,
        labelled_channels_in: Callable[[str], Collection[int]],
        stray_free: Collection[int],
        *,
        segmented: Segmented = most_probable_classes,
    ) -> None:
        """Segments the cases that are not segmented yet. Returns when every rank is done with its own.

        Two trainings that begin together take the cases each in an order of its own, so that they share the work.

        Args:
            cases: to segment.
            predictor: with the teacher's network.
            labelled_channels_in: case -> channels that its labels show; the teacher's segmentation leaves them out.
            stray_free: channels whose stray regions get the teacher's next most probable class.
            segmented: makes a segmentation of the teacher's logits; as of ``most_probable_classes``.

        Raises:
            CILError: the disk has no room for them.
        """
        dataset = cases.dataset()
        images = {case: _case_file(dataset.source_folder, case) for case in cases.cases}
        seen = {case: [file, *_previous_stage(dataset, case)] for case, file in images.items()}
        self._folders = {case: self.folder / _key(files, labelled_channels_in(case)) for case, files in seen.items()}
        own = [case for case in dataset.identifiers if case not in self]
        check_room(self.folder, sum(_expected_size(images[case]) for case in own), "nnUNet_preprocessed")
        random.Random(os.getpid()).shuffle(own)
        progress = tqdm(own, desc="Teacher's segmentations", disable=cases.ranks.rank > 0 or not own)
        for number, case in enumerate(progress, start=1):
            if case not in self:
                data, _, previous, _ = dataset.load_case(case)
                image = network_input(data, previous, cases.previous_labels)
                found = _segmented(image, predictor, labelled_channels_in(case), stray_free, segmented)
                self._save(dataset, case, *found)
            cases.ranks.barrier_after(number, len(cases.cases))
        cases.ranks.barrier()

    def _save(
        self, dataset: nnUNetBaseDataset, case: str, segmentation: npt.NDArray[np.int16], means: Sequence[float | None]
    ) -> None:
        """Writes a case's confidences, then its segmentation: aside, to be moved into place."""
        write_json(self._confidences(case), means)
        with temporary_folder(self.folder, case) as aside:
            dataset.save_seg(segmentation, str(aside / case))
            self._folders[case].mkdir(parents=True, exist_ok=True)
            for file in aside.iterdir():
                file.replace(self._folders[case] / file.name)

    def confidences(self, case: str) -> list[float | None]:
        """Returns the ``mean_confidences`` of a case that is segmented; empty for regions."""
        return read_json_list(self._confidences(case), "Delete it while nothing trains.")

    def _confidences(self, case: str) -> Path:
        return self._folders[case] / f"{case}_confidences.json"

    def load_case(self, dataset: nnUNetBaseDataset, case: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Loads a case as nnU-Net, with the teacher's segmentation as previous segmentation; or all ``NOT_SEGMENTED``.

        That of a cascade's previous stage, which nnU-Net would return there, is a second channel of the segmentation then.
        """
        is_segmented = case in self
        folder = str(self._folders[case]) if is_segmented else None
        data, segmentation, volume, properties = type(dataset)(dataset.source_folder, [case], folder).load_case(case)
        if not is_segmented:
            volume = np.broadcast_to(np.int16(NOT_SEGMENTED), segmentation.shape[1:])
        if dataset.folder_with_segs_from_previous_stage is not None:
            segmentation = StackedMaps(segmentation, dataset.load_case(case)[2])
        return data, segmentation, volume, properties


def segment_volumes(
    trainer: nnUNetTrainerCIL, teacher: Teacher, previous: PreviousStep, dropped: Sequence[str]
) -> TeacherVolumes:
    """Segments the cases of a pass with a training's teacher, as far as they are not there already.

    Args:
        trainer: of the training.
        teacher: its teacher.
        previous: the model that the teacher is.
        dropped: classes whose stray regions get the teacher's next most probable class.
    """
    step, configuration = trainer.step_plan, trainer.configuration_manager
    strays = [step.teacher_classes.index(name) + (not step.has_regions) for name in dropped]
    recipe = {
        "version": _RECIPE_VERSION,
        "teacher": previous.sha256,
        "configuration": configuration.configuration,
        "device": trainer.device.type,
        "stray_free": strays,
    }
    store = VolumeStore(str(trainer.plans_manager.dataset_name))
    if trainer.ranks.rank == 0:
        store.claim(Claim.of(Path(trainer.output_folder), previous.file))
    volumes = TeacherVolumes(store.recipe_folder(recipe, previous.file))
    host = trainer.plans_manager, configuration, trainer.dataset_json, trainer.device
    predictor = volume_predictor(teacher.network, step.teacher_classes, *host, of_regions=step.has_regions)
    segmented = region_bits if step.has_regions else most_probable_classes
    volumes.write(trainer.training_pass(), predictor, trainer.labelled_channels_in, strays, segmented=segmented)
    return volumes


def release_volumes(trainer: nnUNetTrainerCIL) -> None:
    """Removes the volumes that no training needs any more, on one rank, once no rank of this training reads them."""
    trainer.ranks.barrier()
    if trainer.ranks.rank == 0:
        VolumeStore(str(trainer.plans_manager.dataset_name)).release(Path(trainer.output_folder))
    trainer.ranks.barrier()


def volume_predictor(
    network: nn.Module,
    classes: Sequence[str],
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: Mapping[str, Any],
    device: torch.device,
    *,
    of_regions: bool,
) -> nnUNetPredictor:
    """Returns a predictor for the teacher's network, without mirroring.

    Args:
        network: the teacher's.
        classes: its foreground classes, in channel order.
        plans: of the step.
        configuration: of the training.
        dataset_json: of the step; its labels are replaced by ``classes``.
        device: of the training.
        of_regions: the classes overlap.
    """
    predictor = BatchedPredictor(
        tile_step_size=_TILE_STEP,
        use_mirroring=False,
        perform_everything_on_device=device.type == "cuda",
        device=device,
        allow_tqdm=False,
    )
    described = {**dataset_json, **_labels(classes, of_regions=of_regions)}
    predictor.manual_initialization(network, plans, configuration, None, described, "", None)
    return predictor


def _labels(classes: Sequence[str], *, of_regions: bool) -> dict[str, Any]:
    """Returns labels as of nnU-Net's dataset.json, from which it tells the number of channels."""
    numbers = {name: number for number, name in enumerate(("background", *classes))}
    if not of_regions:
        return {"labels": numbers}
    regions: dict[str, Any] = {name: (number, number) if number else 0 for name, number in numbers.items()}
    return {"labels": regions, "regions_class_order": list(numbers.values())[1:]}


def _segmented(
    image: npt.NDArray[np.float32],
    predictor: nnUNetPredictor,
    labelled: Collection[int],
    stray_free: Collection[int],
    segmented: Segmented,
) -> tuple[npt.NDArray[np.int16], list[float | None]]:
    """Returns the teacher's segmentation, (*spatial), and its confidences, of regions none.

    The logits, which fill much of a GPU, are freed with this call.
    """
    logits = torch.as_tensor(predictor.predict_sliding_window_return_logits(torch.from_numpy(image)))
    segmentation: npt.NDArray[np.int16] = segmented(logits, labelled, stray_free).cpu().numpy()
    return segmentation, [] if segmented is region_bits else mean_confidences(logits)


def _has_file(folder: Path, case: str) -> bool:
    return any((folder / f"{case}{ending}").is_file() for ending in DATA_ENDINGS)


def _case_file(folder: str, case: str) -> Path:
    """Returns the file from which nnU-Net reads a case's image, or its segmentation by the previous stage."""
    return next(file for ending in DATA_ENDINGS if (file := Path(folder, f"{case}{ending}")).is_file())


def _previous_stage(dataset: nnUNetBaseDataset, case: str) -> list[Path]:
    """Returns the file of a case's segmentation by a cascade's previous stage, which the teacher sees; none elsewhere."""
    folder = dataset.folder_with_segs_from_previous_stage
    return [] if folder is None else [_case_file(folder, case)]


def _key(seen: Sequence[Path], labelled: Collection[int]) -> str:
    """Returns what tells a case's volume of one recipe from others: the files that the teacher sees, and labelled channels."""
    return json_sha256([*map(file_sha256, seen), sorted(labelled)])[:16]


def _expected_size(image: Path) -> int:
    """Returns the bytes that a case's segmentation may take: twice those of its labels."""
    labels = image.with_name(f"{image.stem}_seg{image.suffix}")
    size = labels.stat().st_size if labels.is_file() else _LABELS_SHARE * image.stat().st_size
    return 2 * int(size)
