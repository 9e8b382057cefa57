"""A schedule over two data sets, for tests: its names, labels and steps."""

from toy import write_schedule

from nnunet_cil.workflows.evaluate.options import EvaluationOptions

NEW, MOVED = "Dataset018_New", "nnUNetPlansFrom017"
PGCD, MIB = "nnUNetTrainerPGCD", "nnUNetTrainerMiB"
CPU = EvaluationOptions(device="cpu")
NEW_LABELS = {"background": 0, "cyst": 1, "kidney": 2, "liver": 3}
STEPS = [{"classes": ["liver", "spleen"]}, {"classes": ["kidney"], "dataset": 18}]
BACK = [*STEPS, {"classes": ["cyst"]}]
"""A third step, on the first data set again."""


def schedule_file(folder, steps=STEPS, name="toy", **extra):
    return write_schedule(folder, steps, name=name, **extra)
