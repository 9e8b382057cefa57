"""A record of a training, as a checkpoint holds it."""

from nnunet_cil.lineage import StepRecord

RECORD = StepRecord(
    step=0,
    classes=("liver",),
    schedule="toy",
    dataset="Dataset017_Toy",
    num_cases=4,
    licence="",
    trainer="nnUNetTrainerPGCD",
    plans="nnUNetPlans_toy_step0",
    configuration="3d_fullres",
    fold="0",
    date="2026-01-02T03:04:05+00:00",
    versions={"nnunetv2": "2.8.1"},
    previous_sha256=None,
)
