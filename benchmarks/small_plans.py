"""Writes a copy of a data set's base plans with a small network and patch, for experiments without a GPU.

    python benchmarks/small_plans.py 900 --features 8 16 32 64 --patch 32 48 48 --batch 2

The copy is called nnUNetPlansSmall (or the plans' name + Small, or --name) and shares the base plans' preprocessed data.
"""

from __future__ import annotations

import argparse
import json

from nnunet_cil.files import read_json
from nnunet_cil.host.folders import dataset_name, nnunet_folder
from nnunet_cil.host.plans_files import small_plans


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="data set ID or name")
    parser.add_argument("--features", type=int, nargs="+", default=[8, 16, 32, 64], help="features of each stage")
    parser.add_argument("--patch", type=int, nargs="+", default=[32, 48, 48], help="patch size")
    parser.add_argument("--batch", type=int, default=2, help="batch size")
    parser.add_argument("-c", "--configuration", default="3d_fullres")
    parser.add_argument("-p", "--plans", default="nnUNetPlans", help="that are copied (default: %(default)s)")
    parser.add_argument("--name", help="of the copy (default: the plans' name + Small)")
    args = parser.parse_args()
    folder = nnunet_folder("nnUNet_preprocessed") / dataset_name(args.dataset)
    plans = read_json(folder / f"{args.plans}.json", "Run nnUNetv2_plan_and_preprocess first.")
    name = args.name or f"{args.plans}Small"
    small = small_plans(
        plans,
        name,
        args.configuration,
        features=args.features,
        patch_size=args.patch,
        batch_size=args.batch,
    )
    file = folder / f"{name}.json"
    file.write_text(json.dumps(small, indent=4) + "\n", encoding="utf-8")
    print(file)


if __name__ == "__main__":
    main()
