"""Tells how small labelled organs are, as shares of their class's mean volume; nothing else stands for "small" in a training.

    python benchmarks/organ_sizes.py 900 901 904

A case without the class does not count.
"""

from __future__ import annotations

import argparse

import numpy as np
import SimpleITK as sitk

from nnunet_cil.files import read_json
from nnunet_cil.host.folders import dataset_name, nnunet_folder

QUARTER = 0.25


def shares(dataset: str) -> dict[str, list[float]]:
    """Returns class -> the volume of each case that has it, in units of their mean."""
    folder = nnunet_folder("nnUNet_raw") / dataset
    content = read_json(folder / "dataset.json", "It is the raw data set's.")
    volumes: dict[str, list[float]] = {name: [] for name, number in content["labels"].items() if number}
    for file in sorted((folder / "labelsTr").glob(f"*{content['file_ending']}")):
        image = sitk.ReadImage(str(file))
        labels = sitk.GetArrayFromImage(image)
        for name, found in volumes.items():
            if number := int((labels == content["labels"][name]).sum()):
                found.append(number * float(np.prod(image.GetSpacing())))
    return {name: (np.array(found) / np.mean(found)).tolist() for name, found in volumes.items()}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="data set IDs or names")
    found = {
        (name, organ): own
        for name in map(dataset_name, parser.parse_args().datasets)
        for organ, own in shares(name).items()
    }
    for (name, organ), own in found.items():
        print(f"{name}, {organ}: {len(own)} cases, the smallest {min(own):.2f}")
    small, number = (sum(sum(share < most for share in own) for own in found.values()) for most in (QUARTER, np.inf))
    print(f"{small} of {number} are smaller than {QUARTER:g} of their mean.")


if __name__ == "__main__":
    main()
