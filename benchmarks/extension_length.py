"""Measures how long an extension should be trained: Dice of old and new classes over its length.

    export nnUNet_extTrainer="$(nnunet_cil trainers)"
    python benchmarks/extension_length.py 900 openkbp_2-1_extension -o mine.csv
    python benchmarks/extension_length.py 901 acdc_2-1_extension -c 2d -o mine.csv
    python benchmarks/extension_length.py 901 acdc_2-1_extension -c 2d -o mine.csv --rates 0.001 0.0003
    python benchmarks/extension_length.py 900 openkbp_2-1_extension -o mine.csv --table

The length of the schedule's second step is that of a training of the new classes from scratch, which is done, too; an extension
by nnUNetTrainerPGCD with its defaults gets a 16th, 8th, quarter, half of it, and as much. nnU-Net's learning rate falls to 0
within each. --rates adds trainings of full length that begin with other learning rates. All extend one base model
(benchmarks/extensions.py). What is finished is skipped; stop it at any time.
"""

from __future__ import annotations

from collections.abc import Sequence

from extensions import ALONE, Extension, Extensions, parser, schedule_of, table

from nnunet_cil.errors import CILError
from nnunet_cil.schedule import Schedule
from nnunet_cil.step_plans import DEFAULT_EPOCHS

METHOD = "PGCD"
PARTS = 16, 8, 4, 2, 1


def full_length(schedule: Schedule) -> int:
    """Returns the epochs of a training from scratch."""
    return int(schedule.steps[1].training.get("num_epochs", DEFAULT_EPOCHS))


def planned(full: int, parts: Sequence[int], method: str, rates: Sequence[float] = ()) -> list[Extension]:
    """Returns the trainings, that from scratch in the middle: an interruption leaves something to read."""
    lengths = [max(1, round(full / part)) for part in parts]
    found = [_extension(method, length) for length in dict.fromkeys(lengths)]
    others = [_extension(method, full, rate) for rate in rates]
    return [*found[:-1], _extension(ALONE, full), *found[-1:], *others]


def _extension(method: str, num_epochs: int, rate: float | None = None) -> Extension:
    setting, suffix = f"num_epochs={num_epochs}", f"{'alone' if method == ALONE else 'length'}{num_epochs}"
    if rate is not None:
        setting, suffix = f"{setting},initial_lr={rate:g}", f"{suffix}_lr{rate:g}".replace(".", "p")
    return Extension(method=method, setting=setting, suffix=suffix, num_epochs=num_epochs, initial_lr=rate)


def cells(full: int, extensions: Sequence[Extension]) -> dict[tuple[str, str], list[str]]:
    """Returns the first cells of the table's rows."""
    found = {("", ""): ["the model before", "", ""]}
    for e in sorted(extensions, key=lambda e: e.is_alone):
        what = "new classes alone" if e.is_alone else f"extended ({e.method})"
        what += "" if e.initial_lr is None else f", learning rate {e.initial_lr:g}"
        found[e.method, e.setting] = [what, str(e.num_epochs), f"{e.num_epochs / full:.3g}"]
    return found


def main() -> None:
    """Runs the command line."""
    p = parser(__doc__)
    p.add_argument("--method", default=METHOD, help="trainer without 'nnUNetTrainer' (default: %(default)s)")
    p.add_argument("--parts", type=int, nargs="+", default=PARTS, help="divisors of the length (default: %(default)s)")
    p.add_argument("--rates", type=float, nargs="+", default=[], help="initial learning rates of full length, too")
    args = p.parse_args()
    try:
        schedule = schedule_of(args)
        full = full_length(schedule)
        extensions = planned(full, args.parts, args.method, args.rates)
        if not args.table:
            found = Extensions.of(args)
            for fold in args.folds:
                found.run(fold, extensions)
        print(table(args.results, schedule, ["model", "epochs", "share"], cells(full, extensions)))
    except CILError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
