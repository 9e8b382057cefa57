"""Simulates how often intervals of a difference hold the true one.

    python benchmarks/bootstrap_coverage.py

A difference is drawn as training + patient + the rest, each normal with a standard deviation of its own. *Crossed* draws the
patients once for all trainings, *nested* draws them in each training, *shipped* is what the package gives: it holds crossed
and t. *Own patients*: shipped, where each training has other patients, as the validation cases of folds: there it holds the
bootstrap over these patients, too.
"""

from __future__ import annotations

import argparse

import numpy as np

from nnunet_cil.evaluation.bootstrap import Array, Sample, bootstrap_interval, difference_interval

SPREADS = {
    "patients vary most": (0.002, 0.03, 0.01),
    "trainings, patients and the rest alike": (0.006, 0.03, 0.03),
    "trainings vary most": (0.02, 0.01, 0.03),
}
"""Standard deviations of training, patient and the rest, in Dice."""

KINDS = "crossed", "nested", "shipped", "own patients"


def drawn(
    spread: tuple[float, float, float], num_trainings: int, num_patients: int, random: np.random.Generator, *, own: bool
) -> Array:
    """Returns (trainings, patients, 1) differences whose true mean is 0; NaN where a training has not the patient."""
    training, patient, rest = spread
    patients = num_patients * (num_trainings if own else 1)
    shape = num_trainings, patients
    values = random.normal(0, training, (num_trainings, 1)) + random.normal(0, patient, patients)
    values = values + random.normal(0, rest, shape)
    if own:
        owner = np.arange(patients) // num_patients
        values[owner != np.arange(num_trainings)[:, None]] = np.nan
    return values[:, :, None]


def nested_interval(values: Array, num_replicates: int, random: np.random.Generator) -> tuple[float, float]:
    """Draws the trainings, and the patients in each of them."""
    num_trainings, num_patients, _ = values.shape
    trainings = random.integers(num_trainings, size=(num_replicates, num_trainings, 1))
    patients = random.integers(num_patients, size=(num_replicates, num_trainings, num_patients))
    low, high = np.quantile(values[trainings, patients, 0].mean((1, 2)), (0.025, 0.975))
    return float(low), float(high)


def coverage(
    kind: str,
    spread: tuple[float, float, float],
    num_trainings: int,
    *,
    num_patients: int = 20,
    number: int = 400,
    num_replicates: int = 1000,
) -> float:
    """Returns the share of simulated studies whose interval holds the true difference."""
    random = np.random.default_rng(7)
    found = 0
    for _ in range(number):
        values = drawn(spread, num_trainings, num_patients, random, own=kind == "own patients")
        if kind == "nested":
            low, high = nested_interval(values, num_replicates, random)
        else:
            strata = np.full(values.shape[1], -1 if kind == "own patients" else 0)
            found_by = bootstrap_interval if kind == "crossed" else difference_interval
            interval = found_by([Sample(values=values, strata=strata)], num_replicates=num_replicates)
            low, high = interval.low, interval.high
        found += low <= 0 <= high
    return found / number


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainings", type=int, nargs="+", default=[2, 3, 5, 8, 10], help="default: %(default)s")
    parser.add_argument("--patients", type=int, default=20, help="of a training (default: %(default)s)")
    parser.add_argument("--number", type=int, default=400, help="of simulated studies (default: %(default)s)")
    args = parser.parse_args()
    print(f"| what varies | trainings | {' | '.join(KINDS)} |\n|---|---|{'---|' * len(KINDS)}")
    for name, spread in SPREADS.items():
        for trainings in args.trainings:
            cells = [
                f"{coverage(kind, spread, trainings, num_patients=args.patients, number=args.number):.0%}"
                for kind in KINDS
            ]
            print(f"| {name} | {trainings} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
