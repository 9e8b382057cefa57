"""The options of an evaluation: refused where they do not go together, and the command that repeats them."""

import shlex
from pathlib import Path

import pytest
from toy import DATASET, ORGANS, write_schedule

from nnunet_cil.cli.arguments import evaluation_options, experiment_of
from nnunet_cil.cli.main import _parser
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate.options import EvaluationOptions, evaluate_command
from nnunet_cil.workflows.experiment import Experiment


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"cases": "validation", "output": Path("my results")},
        {"images": Path("a $b"), "labels": Path("c"), "cases": "test", "device": "cpu", "tolerance_mm": 0.5},
    ],
)
def test_the_command_that_is_printed_repeats_the_evaluation(toy, tmp_path, given):
    (tmp_path / "a folder").mkdir()
    options = EvaluationOptions(**given)
    experiment = Experiment(
        dataset=DATASET,
        configuration="3d_fullres",
        folds=(0, "all"),
        schedule_name=str(write_schedule(tmp_path / "a folder", [ORGANS])),
        trainers=("nnUNetTrainerPGCD", "nnUNetTrainerMiB"),
        base_plans="nnUNetResEncUNetLPlans",
    )
    program, *arguments = shlex.split(shlex.join(evaluate_command(experiment, options)))
    args = _parser().parse_args(arguments)
    assert program == "nnunet_cil"
    assert experiment_of(args) == experiment
    assert evaluation_options(args, tolerance_mm=args.tolerance) == options


def test_images_and_labels_go_together_and_not_with_validation_cases():
    for one in ("images", "labels"):
        with pytest.raises(CILError, match="Give -i IMAGES and -l LABELS together"):
            EvaluationOptions(**{one: Path("x")})
    with pytest.raises(CILError, match="--cases validation takes no -i and -l"):
        EvaluationOptions(images=Path("x"), labels=Path("y"), cases="validation")
