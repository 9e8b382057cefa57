"""The teacher's segmentation of whole training volumes, which patches carry as those of nnU-Net's cascades do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn
from tqdm import tqdm

from nnunet_cil.training.passes import Ranks, TrainingPass
from nnunet_cil.training.stray_regions import stray_regions

NOT_SEGMENTED = 32767
"""The value of every voxel of a case that was not segmented; as a label it survives nnU-Net's augmentation."""

_ENDINGS = (".b2nd", ".npz")
"""File endings of nnU-Net's two formats."""


class TeacherVolumes:
    """A folder with one segmentation a case, in the teacher's channels, in nnU-Net's format for preprocessed data.

    On a patch the teacher has little context, and sees augmented images. Whole volumes it segments as nnU-Net predicts them,
    with overlapping patches and Gaussian weights, without mirroring.
    """

    def __init__(self, folder: Path) -> None:
        """Keeps the folder's path; ``write`` makes the folder."""
        self.folder = folder

    def remove(self, ranks: Ranks) -> None:
        """Removes the folder and its content, on one rank, once no rank reads it any more."""
        ranks.barrier()
        if ranks.rank == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        ranks.barrier()

    def __contains__(self, case: str) -> bool:
        """Returns True if the case is segmented."""
        return any((self.folder / f"{case}{ending}").is_file() for ending in _ENDINGS)

    def write(
        self,
        cases: TrainingPass,
        predictor: nnUNetPredictor,
        labelled_channels_in: Callable[[str], Collection[int]],
        stray_free: Collection[int],
    ) -> None:
        """Segments the cases that are not segmented yet. Returns when every rank is done with its own.

        Args:
            cases: to segment.
            predictor: with the teacher's network.
            labelled_channels_in: case -> channels that its labels show; the teacher's segmentation leaves them out.
            stray_free: channels whose stray regions get the teacher's next most probable class.
        """
        aside = self.folder / f"unfinished_{os.getpid()}"
        aside.mkdir(parents=True, exist_ok=True)
        dataset = cases.dataset()
        progress = tqdm(dataset.identifiers, desc="Teacher's segmentations", disable=cases.ranks.rank > 0)
        for number, case in enumerate(progress, start=1):
            if case not in self:
                image = np.array(dataset.load_case(case)[0][:], dtype=np.float32)
                dataset.save_seg(
                    _segmented(image, predictor, labelled_channels_in(case), stray_free), str(aside / case)
                )
                for file in aside.iterdir():
                    file.replace(self.folder / file.name)
            cases.ranks.barrier_after(number, len(cases.cases))
        shutil.rmtree(aside, ignore_errors=True)
        cases.ranks.barrier()

    def load_case(self, dataset: nnUNetBaseDataset, case: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Loads a case as nnU-Net, with the teacher's segmentation as previous segmentation; or all ``NOT_SEGMENTED``."""
        if case in self:
            loaded: tuple[Any, Any, Any, dict[str, Any]]
            loaded = type(dataset)(dataset.source_folder, [case], str(self.folder)).load_case(case)
            return loaded
        data, segmentation, _, properties = dataset.load_case(case)
        return data, segmentation, np.broadcast_to(np.int16(NOT_SEGMENTED), segmentation.shape[1:]), properties


def volume_predictor(
    network: nn.Module,
    classes: Sequence[str],
    plans: PlansManager,
    configuration: ConfigurationManager,
    dataset_json: Mapping[str, Any],
    device: torch.device,
) -> nnUNetPredictor:
    """Returns nnU-Net's predictor for the teacher's network, without mirroring.

    Args:
        network: the teacher's.
        classes: its foreground classes, in channel order.
        plans: of the step.
        configuration: of the training.
        dataset_json: of the step; its labels are replaced by ``classes``.
        device: of the training.
    """
    predictor = nnUNetPredictor(
        use_mirroring=False, perform_everything_on_device=device.type == "cuda", device=device, allow_tqdm=False
    )
    labels = {name: channel for channel, name in enumerate(("background", *classes))}
    predictor.manual_initialization(network, plans, configuration, None, {**dataset_json, "labels": labels}, "", None)
    return predictor


def _segmented(
    image: npt.NDArray[np.float32],
    predictor: nnUNetPredictor,
    labelled: Collection[int],
    stray_free: Collection[int],
) -> npt.NDArray[np.int16]:
    """Returns the teacher's segmentation, (*spatial). The logits, which fill much of a GPU, are freed with this call."""
    logits = torch.as_tensor(predictor.predict_sliding_window_return_logits(torch.from_numpy(image)))
    if decided := [c for c in labelled if c < len(logits)]:
        logits = logits.index_fill(0, torch.tensor(decided, device=logits.device), -torch.inf)
    classes = logits.argmax(0).to(torch.int16)
    if stray_free:
        strays = torch.from_numpy(stray_regions(classes.cpu().numpy(), stray_free)).to(logits.device)
        others = logits[:, strays].scatter(0, classes[strays][None].long(), -torch.inf)
        classes[strays] = others.argmax(0).to(torch.int16)
    segmentation: npt.NDArray[np.int16] = classes.cpu().numpy()
    return segmentation
