"""Values that a command does not take are refused in a sentence, and the others are read."""

from argparse import ArgumentTypeError

import pytest

from nnunet_cil.cli import main
from nnunet_cil.cli.arguments import fold, key_values, tolerance_mm, whole_number
from nnunet_cil.errors import CILError

RUN = ["run", "17", "3d_fullres", "0", "toy", "-tr", "nnUNetTrainerPGCD"]
EVALUATE = ["evaluate", *RUN[1:]]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ([*RUN, "--max-jobs", "x"], "--max-jobs: 'x' is not a whole number from 1 to 999"),
        ([*RUN, "--max-jobs", "0"], "--max-jobs: '0' is not a whole number from 1 to 999"),
        ([*RUN, "-num_gpus", "-3"], "-num_gpus: '-3' is not a whole number from 1 to 64"),
        ([*RUN, "-num_gpus", "1.5"], "-num_gpus: '1.5' is not a whole number from 1 to 64"),
        ([*RUN, "--start-from", "-1"], "--start-from: '-1' is not a whole number from 0 to 999"),
        ([*RUN, "--start-from", "one"], "--start-from: 'one' is not a whole number from 0 to 999"),
        ([*RUN, "--stop-after", "-1"], "--stop-after: '-1' is not a whole number from 0 to 999"),
        ([*RUN, "--stop-after", ""], "--stop-after: '' is not a whole number from 0 to 999"),
        ([*EVALUATE, "--tolerance", "wide"], "--tolerance: 'wide' is not a distance in mm: a number from 0 to 1000"),
        ([*EVALUATE, "--tolerance", "-2"], "--tolerance: '-2' is not a distance in mm: a number from 0 to 1000"),
        ([*EVALUATE, "--tolerance", "nan"], "--tolerance: 'nan' is not a distance in mm: a number from 0 to 1000"),
        ([*EVALUATE, "--tolerance", "inf"], "--tolerance: 'inf' is not a distance in mm: a number from 0 to 1000"),
        (["inspect", "17", "--pictures", "-1"], "--pictures: '-1' is not a whole number from 0 to 9999"),
        (["inspect", "17", "--pictures", "few"], "--pictures: 'few' is not a whole number from 0 to 9999"),
        (["schedules", "new", "17", "--seed", "-3"], "--seed: '-3' is not a whole number from 0 to 4294967295"),
        (["schedules", "new", "17", "--seed", "x"], "--seed: 'x' is not a whole number from 0 to 4294967295"),
        (["convert", "btcv", "there", "0"], "DATASET_ID: '0' is not a whole number from 1 to 999"),
        (["convert", "btcv", "there", "BTCV"], "DATASET_ID: 'BTCV' is not a whole number from 1 to 999"),
        ([*RUN[:3], "first", *RUN[4:]], "FOLD: 'first' is not a fold (0 to 4, or all)"),
        ([*RUN[:3], "-1", *RUN[4:]], "FOLD: '-1' is not a fold (0 to 4, or all)"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_a_value_that_makes_no_sense_is_refused_in_a_sentence(capsys, command, message):
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert f"error: argument {message}" in capsys.readouterr().err


def test_whole_numbers_are_read_within_their_range():
    assert [whole_number(0, 10**6)(text) for text in ("0", "7", "1000000")] == [0, 7, 1_000_000]
    assert [whole_number(1, 999)(text) for text in ("1", "017", "999")] == [1, 17, 999]


def test_distances_may_be_zero_or_fractions():
    assert [tolerance_mm(text) for text in ("0", "2", "1.5", "1e-1")] == [0, 2, 1.5, 0.1]


@pytest.mark.parametrize("text", ["\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT THREE}", "1.0", "All", ""])
def test_a_fold_is_a_plain_number_or_all(text):
    assert (fold("all"), fold("0"), fold("4")) == ("all", 0, 4)
    with pytest.raises(ArgumentTypeError, match="is not a fold"):
        fold(text)


@pytest.mark.parametrize("pair", ["partition", "=gpu", ""])
def test_what_is_not_key_and_value_is_refused(pair):
    with pytest.raises(CILError, match="--slurm takes KEY=VALUE, not"):
        key_values("--slurm", ["timeout_min=60", pair])
