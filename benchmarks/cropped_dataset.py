"""Writes a raw data set in which the patients of later steps show no old class: their images end before it.

    python benchmarks/cropped_dataset.py 904 hippocampus_1-1_disjoint_cpu Dataset906_HippocampusCropped --fold 1

As where the new images have another field of view. The steps must be planned on DATASET. A patient of a later step is cut by the
plane along one axis that leaves no voxel of an earlier step's classes, and most voxels of the step's own. The fold's validation
cases are not cut, so that they tell what became of the old classes. The split of DATASET is copied; plan and preprocess the new
data set, and run the fold on it alone.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from study_tables import schedule_file

from nnunet_cil.files import read_json, read_json_list, write_json
from nnunet_cil.host.folders import dataset_name, nnunet_folder
from nnunet_cil.schedule import load_schedule
from nnunet_cil.step_plans import StepPlan, read_step_plan

Box = tuple[slice, ...]


def box_without(labels: NDArray[np.integer], old: Collection[int], new: Collection[int]) -> Box:
    """Returns the part of a volume on one side of all old classes that has most voxels of new ones.

    Args:
        labels: label map, [D, H, W].
        old: labels that must not be in it.
        new: labels of which as many voxels as possible must be.

    Raises:
        ValueError: no side has a voxel of a new class.
    """
    is_old, is_new = np.isin(labels, list(old)), np.isin(labels, list(new))
    whole = (slice(None),) * labels.ndim
    found = {0: whole} if not is_old.any() else {}
    for axis in range(labels.ndim) if is_old.any() else ():
        others = tuple(a for a in range(labels.ndim) if a != axis)
        occupied = np.flatnonzero(is_old.any(axis=others))
        for side in (slice(None, int(occupied[0])), slice(int(occupied[-1]) + 1, None)):
            box = (*whole[:axis], side, *whole[axis + 1 :])
            found[int(is_new[box].sum())] = box
    most = max(found)
    if is_old.any() and not most:
        raise ValueError("no side of the old classes shows a new one")
    return found[most]


def cut(file: Path, box: Box, target: Path) -> None:
    """Writes a part of an image, which stays where it was in space."""
    image = sitk.ReadImage(str(file))
    sitk.WriteImage(image[tuple(reversed(box))], str(target), useCompression=True)


def boxes(plan: StepPlan, numbers: Mapping[str, int], files: Mapping[str, Path]) -> Iterator[tuple[str, Box, float]]:
    """Yields what is left of each case of a step, and which share of its new classes' voxels that is.

    Args:
        plan: of the step.
        numbers: the data set's, of each class.
        files: label map of each case; of these alone.
    """
    old, new = ([numbers[name] for name in classes] for classes in (plan.old_classes, plan.new_classes))
    for case in sorted(set(plan.cases or ()) & set(files)):
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(files[case])))
        try:
            box = box_without(labels, old, new)
        except ValueError as error:
            raise SystemExit(f"{files[case]}: {error}. Leave the case out of the data set.") from None
        yield case, box, np.isin(labels[box], new).sum() / np.isin(labels, new).sum()


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="data set ID or name, whose steps are planned")
    parser.add_argument("schedule", help="its schedule, of benchmarks/schedules")
    parser.add_argument("name", help="of the data set to write into nnUNet_raw")
    parser.add_argument("--fold", type=int, required=True, help="whose validation cases stay whole")
    parser.add_argument("-p", default="nnUNetPlansSmall", help="base plans (default: %(default)s)")
    args = parser.parse_args()
    name, schedule = dataset_name(args.dataset), load_schedule(schedule_file(args.schedule))
    source, target = (nnunet_folder("nnUNet_raw") / folder for folder in (name, args.name))
    preprocessed = nnunet_folder("nnUNet_preprocessed")
    if target.exists():
        raise SystemExit(f"{target} is there already. Remove it, or give another name.")
    split = read_json_list(preprocessed / name / "splits_final.json", "Run benchmarks/six_folds.py first.")
    content = read_json(source / "dataset.json", "It is the raw data set's.")
    ending = content["file_ending"]
    files = {case: source / "labelsTr" / f"{case}{ending}" for case in split[args.fold]["train"]}
    plans = (
        read_json(preprocessed / name / f"{args.p}_{schedule.name}_step{step}.json", "Run nnunet_cil plan first.")
        for step in range(1, len(schedule.steps))
    )
    found = [box for plan in plans for box in boxes(read_step_plan(plan, content), content["labels"], files)]
    of_case = {case: box for case, box, _ in found}
    for folder in ("imagesTr", "labelsTr"):
        (target / folder).mkdir(parents=True)
        for file in (source / folder).glob(f"*{ending}"):
            stem = file.name.removesuffix(ending)
            box = of_case.get(stem if folder == "labelsTr" else stem.rpartition("_")[0])
            shutil.copyfile(file, target / folder / file.name) if box is None else cut(
                file, box, target / folder / file.name
            )
    write_json(target / "dataset.json", content)
    (preprocessed / args.name).mkdir(exist_ok=True)
    write_json(preprocessed / args.name / "splits_final.json", split)
    kept = [share for _, _, share in found]
    print(
        f"{target}: {len(kept)} cases cut; they keep {np.mean(kept):.2f} of their new classes, {min(kept):.2f} or more."
    )


if __name__ == "__main__":
    main()
