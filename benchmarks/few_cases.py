"""Measures what an extension gives with few labelled cases of the new class, with nnunet_cil's options and without.

    export nnUNet_extTrainer="$(nnunet_cil trainers)"
    python benchmarks/few_cases.py 900 openkbp_2-1_extension --epochs 16 -o mine.csv
    python benchmarks/few_cases.py 900 openkbp_2-1_extension --epochs 16 -o mine.csv --table

Three, five and ten training cases of the schedule's second step, drawn several times; a larger draw holds the smaller one.
nnUNetTrainerPGCD has the options that it is shipped with, nnUNetTrainerPGCDPaper none, and nnUNetTrainerFineTune keeps nothing.
With Alone among the methods a model of the new class alone, from scratch. All extend one base model (benchmarks/extensions.py).
What is finished is skipped; stop it at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from extensions import ALONE, Extension, Extensions, parser, schedule_of, table

from nnunet_cil.errors import CILError
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.workflows.fold_records import current_cases

METHODS = "PGCD", "PGCDPaper", "FineTune"
NUMBERS = 3, 5, 10
DRAWS = 3


def drawn(training: Sequence[str], validation: Sequence[str], number: int, draw: int) -> tuple[str, ...]:
    """Returns the cases of an extension: some of the step's training cases, and its validation cases.

    Args:
        training: of the step and the fold.
        validation: of the step and the fold.
        number: of training cases.
        draw: the seed.
    """
    order = np.random.default_rng(draw).permutation(len(training))
    chosen = [sorted(training)[index] for index in order[:number]]
    return tuple(sorted([*chosen, *validation]))


def planned(
    step: StepPlan | None, fold_cases: tuple[Sequence[str], Sequence[str]], num_epochs: int, methods: Sequence[str]
) -> Iterator[Extension]:
    """Yields the trainings, the first draw of all first: an interruption leaves a complete, smaller table.

    Args:
        step: the schedule's second; None where nothing is trained.
        fold_cases: the fold's training and validation cases.
        num_epochs: length.
        methods: trainers without nnUNetTrainer.
    """
    training, validation = ([c for c in names if step is None or c in (step.cases or ())] for names in fold_cases)
    if step is not None and len(training) < max(NUMBERS):
        raise CILError(f"The extension has {len(training)} training cases, but up to {max(NUMBERS)} are drawn.")
    for draw in range(DRAWS):
        for number in NUMBERS:
            for method in methods:
                alone = "alone_" if method == ALONE else ""
                yield Extension(
                    method=method,
                    setting=f"cases={number},draw={draw},num_epochs={num_epochs}",
                    suffix=f"{alone}{number}cases{draw}_{num_epochs}epochs",
                    num_epochs=num_epochs,
                    cases=drawn(training, validation, number, draw) if step is not None else None,
                )


def cells(extensions: Sequence[Extension], methods: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Returns the first cells of the table's rows; the draws of a number of cases share them."""
    found = {("", ""): ["", "the model before"]}
    for number in NUMBERS:
        for method in methods:
            own = (e for e in extensions if e.method == method and e.setting.startswith(f"cases={number},"))
            found |= {(e.method, e.setting): [str(number), method] for e in own}
    return found


def main() -> None:
    """Runs the command line."""
    p = parser(__doc__)
    p.add_argument("--epochs", type=int, required=True, help="of every training")
    p.add_argument("--methods", nargs="+", default=METHODS, help="trainers without 'nnUNetTrainer', or Alone")
    args = p.parse_args()
    try:
        if not args.table:
            found = Extensions.of(args)
            for fold in args.folds:
                own = current_cases(found.study.experiment.dataset_name, fold)
                split = own.training, own.validation
                found.run(fold, list(planned(found.planned.plans[1], split, args.epochs, args.methods)))
        extensions = list(planned(None, ((), ()), args.epochs, args.methods))
        print(table(args.results, schedule_of(args), ["cases", "method"], cells(extensions, args.methods)))
    except CILError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
