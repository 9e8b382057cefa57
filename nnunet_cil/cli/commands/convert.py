"""Converts a public data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from nnunet_cil.cli.arguments import Commands, whole_number
from nnunet_cil.limits import MAX_DATASET_ID


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    from nnunet_cil.datasets.catalogue import ACCEPTABLE, NAMES

    parser = commands.add_parser(
        "convert",
        help="turn a public data set, or a folder of yours, into an nnU-Net raw data set",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Reads a download as it comes, checks every case and lists all problems at once. Only then writes\n"
        "nnUNet_raw/DatasetXXX_NAME. After an interruption, run it again: it goes on where it stopped.",
        epilog="\n".join(["NAME is one of:", *(f"  {name:18}{text}" for name, text in NAMES.items())]),
    )
    parser.add_argument("name", metavar="NAME", choices=NAMES, help="name of the data set, as listed below")
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the download: a folder or an archive")
    parser.add_argument(
        "dataset_id", metavar="DATASET_ID", type=whole_number(1, MAX_DATASET_ID), help="nnU-Net's data set ID, 1 to 999"
    )
    parser.add_argument("--copy", action="store_true", help="copy images instead of linking to the download")
    parser.add_argument(
        "--leave-out-faulty",
        action="store_true",
        help="leave out the cases that have blocking problems, and convert the others",
    )
    parser.add_argument(
        "--accept",
        nargs="+",
        default=(),
        metavar="KIND",
        choices=ACCEPTABLE,
        help="kinds of problems to accept: %(choices)s",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the list of all problems to FILE")
    _add_own_arguments(parser)
    parser.set_defaults(resumes=True)
    return parser


def _add_own_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options that only some data sets take."""
    own = parser.add_argument_group("options of some data sets")
    own.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="label only these classes, in this order (openkbp, totalsegmentator)",
    )
    own.add_argument(
        "--split",
        metavar="NAME",
        help="split of the cases: transunet or swin-unetr (btcv); use of the validation cases: validation or test (amos22)",
    )
    own.add_argument(
        "--modality", metavar="NAME", help="images to take: CT, MR or both (amos22), CT, T1DUAL or T2SPIR (chaos)"
    )
    own.add_argument(
        "--cases",
        type=Path,
        metavar="FILE",
        help='convert only these cases: a JSON file {"train": [...], "test": [...]} (openkbp, msd)',
    )
    own.add_argument(
        "--keep-incomplete",
        action="store_true",
        default=None,
        help="keep patients who lack a contour, left out by default: their organ is there, unlabelled (openkbp)",
    )
    own.add_argument("--names", type=Path, metavar="FILE", help="JSON file with the classes (generic)")


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.files import read_json
    from nnunet_cil.workflows.data.convert import SHOWN, convert

    names = ("classes", "split", "modality", "cases", "keep_incomplete", "names")
    options = {name: value for name in names if (value := getattr(args, name)) is not None}
    if "cases" in options:
        options["cases"] = read_json(options["cases"], "Give --cases an existing JSON file.")
    done = convert(
        args.name,
        args.source,
        args.dataset_id,
        options=options,
        copy=args.copy,
        leave_out_faulty=args.leave_out_faulty,
        accept=args.accept,
        report=args.report,
    )
    print(done.findings.text(limit=SHOWN))
    found = done.converted
    print(
        f"{found.num_train} training and {found.num_test} test cases are in {found.folder} ({found.num_written} new)."
    )
    print(f"Next: nnUNetv2_plan_and_preprocess -d {args.dataset_id} -c 3d_fullres --verify_dataset_integrity")
    return 0
