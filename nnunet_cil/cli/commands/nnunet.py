"""Runs nnU-Net's own tools on the models of steps."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_cil.cli.arguments import Commands

if TYPE_CHECKING:
    from nnunet_cil.workflows.tools.compared_folders import ComparedFolders
    from nnunet_cil.workflows.tools.compared_models import Selection

_TOOLS = (
    "find_best_configuration",
    "accumulate_crossval_results",
    "evaluate_folder",
    "determine_postprocessing",
    "ensemble",
)


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Adds the command's parser and returns it."""
    parser = commands.add_parser(
        "nnunet",
        help="run nnU-Net's own evaluation tools on steps' models, with references renumbered",
        description="Runs nnUNetv2_TOOL with the arguments of that tool. nnU-Net compares labels by number, and a step's model "
        "numbers its classes in the order of learning: references are renumbered first, and what no numbers can make right is "
        "refused.",
    )
    parser.add_argument("tool", metavar="TOOL", choices=_TOOLS, help=", ".join(_TOOLS))
    parser.add_argument(
        "arguments",
        metavar="...",
        nargs=argparse.REMAINDER,
        help="arguments of nnUNetv2_TOOL (see its -h). evaluate_folder and determine_postprocessing also take -labels_json, "
        "the dataset.json of the references (default: the step's data set)",
    )
    parser.set_defaults(parser_class=type(parser))
    return parser


def execute(args: argparse.Namespace) -> int:
    """Carries the command out and returns the exit status."""
    from nnunet_cil.workflows.tools import tools

    parser = args.parser_class(
        prog=f"nnunet_cil nnunet {args.tool}",
        description=f"Runs nnUNetv2_{args.tool}, whose own -h explains these arguments and has others.",
        allow_abbrev=False,
    )
    if args.tool in ("find_best_configuration", "accumulate_crossval_results"):
        selection, others = _selection(parser, args.arguments, several=args.tool == "find_best_configuration")
        if args.tool == "find_best_configuration":
            tools.find_best_configuration(selection, others, ensembles="--disable_ensembling" not in others)
        else:
            tools.accumulate_crossval_results(selection, others)
    elif args.tool == "ensemble":
        parser.add_argument("-i", dest="folders", type=Path, nargs="+", required=True)
        parser.add_argument("-o", dest="output", type=Path, required=True)
        own, others = parser.parse_known_args(args.arguments)
        tools.ensemble(own.folders, own.output, others)
    else:
        folders, others = _folders(parser, args.arguments, is_evaluation=args.tool == "evaluate_folder")
        if args.tool == "evaluate_folder":
            tools.evaluate_folder(folders, others, needs_all="--chill" not in others)
        else:
            tools.determine_postprocessing(folders, others)
    return 0


def _selection(
    parser: argparse.ArgumentParser, arguments: Sequence[str], *, several: bool
) -> tuple[Selection, list[str]]:
    """Reads the arguments by which nnU-Net names models; returns the others as they are."""
    from nnunet_cil.workflows.tools.compared_models import Selection

    how = "+" if several else 1
    parser.add_argument("dataset")
    parser.add_argument("-tr", dest="trainers", nargs=how, required=True)
    parser.add_argument("-p", dest="plans", nargs=how, required=True)
    parser.add_argument("-c", dest="configurations", nargs=how, required=True)
    parser.add_argument("-f", dest="folds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    own, others = parser.parse_known_args(arguments)
    selection = Selection(
        dataset=own.dataset,
        trainers=tuple(own.trainers),
        configurations=tuple(own.configurations),
        plans=tuple(own.plans),
        folds=tuple(own.folds),
    )
    return selection, others


def _folders(
    parser: argparse.ArgumentParser, arguments: Sequence[str], *, is_evaluation: bool
) -> tuple[ComparedFolders, list[str]]:
    """Reads the arguments by which nnU-Net names folders and files; returns the others as they are."""
    from nnunet_cil.workflows.tools.compared_folders import ComparedFolders

    if is_evaluation:
        parser.add_argument("references", type=Path)
        parser.add_argument("predictions", type=Path)
        parser.add_argument("-djfile", dest="dataset_json", type=Path, required=True)
        parser.add_argument("-pfile", dest="plans", type=Path, required=True)
    else:
        parser.add_argument("-i", dest="predictions", type=Path, required=True)
        parser.add_argument("-ref", dest="references", type=Path, required=True)
        parser.add_argument("-plans_json", dest="plans", type=Path)
        parser.add_argument("-dataset_json", dest="dataset_json", type=Path)
    parser.add_argument(
        "-labels_json",
        dest="labels_json",
        type=Path,
        help="ours, not nnU-Net's: the dataset.json of the references (default: the step's data set)",
    )
    own, others = parser.parse_known_args(arguments)
    folders = ComparedFolders(
        predictions=own.predictions,
        references=own.references,
        dataset_json=own.dataset_json or own.predictions / "dataset.json",
        plans=own.plans or own.predictions / "plans.json",
        references_json=own.labels_json,
    )
    return folders, others
