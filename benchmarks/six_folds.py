"""Writes a split of six folds into preprocessed data sets: fold 0 for choices, folds 1 to 5 for comparisons.

    python benchmarks/six_folds.py 900 901 904

As nnU-Net's own split of five, with the same seed. A split that is there already is not replaced.
"""

from __future__ import annotations

import argparse

from nnunetv2.utilities.crossval_split import generate_crossval_split

from nnunet_cil.files import write_json
from nnunet_cil.host.folders import dataset_name, nnunet_folder


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", help="data set IDs or names")
    for dataset in parser.parse_args().datasets:
        folder = nnunet_folder("nnUNet_preprocessed") / dataset_name(dataset)
        file = folder / "splits_final.json"
        if file.is_file():
            raise SystemExit(f"{file} is there already: remove it, if no model was trained with it.")
        cases = sorted(path.name.removesuffix(".nii.gz") for path in (folder / "gt_segmentations").glob("*.nii.gz"))
        write_json(file, generate_crossval_split(cases, n_splits=6))
        print(file)


if __name__ == "__main__":
    main()
