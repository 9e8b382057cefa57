"""Writes a raw data set whose classes are regions: the hippocampus as a whole, and its posterior part, which lies within.

    python benchmarks/hippocampus_regions.py FOLDER/Dataset904_Hippocampus Dataset905_HippocampusRegions

Images and label maps are those of the data set of hippocampi, as copies; dataset.json names other classes.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.folders import nnunet_folder

REGIONS = {"background": 0, "hippocampus": [1, 2], "posterior": 2}


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="raw data set with the labels Anterior (1) and Posterior (2)")
    parser.add_argument("name", help="of the data set to write into nnUNet_raw")
    args = parser.parse_args()
    source, target = args.source, nnunet_folder("nnUNet_raw") / args.name
    content = read_json(source / "dataset.json", "It is the raw data set's.")
    if content["labels"] != {"background": 0, "Anterior": 1, "Posterior": 2}:
        raise SystemExit(f"{source}: the labels are {content['labels']}, not background, Anterior and Posterior.")
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name)
    write_json(target / "dataset.json", {**content, "labels": REGIONS, "regions_class_order": [1, 2]})
    print(target)


if __name__ == "__main__":
    main()
