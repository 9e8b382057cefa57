"""nnU-Net's residual encoder presets, as its own planners make them, are planned in steps."""

import json

import pytest
import torch
from toy import DATASET, NUM_CASES, ORGANS, write_schedule

from nnunet_cil.host.networks import plain_network
from nnunet_cil.networks.architectures import encoder_stages, head_layers
from nnunet_cil.networks.features import num_features
from nnunet_cil.networks.heads import num_output_channels, widen_heads
from nnunet_cil.workflows.plan.plan import plan


@pytest.mark.parametrize("preset", ["M", "L", "XL"])
def test_a_preset_is_widened_from_step_to_step(toy, tmp_path, monkeypatch, preset):
    """Takes the planner's own size, for images of 200 voxels in each direction; without memory for the weights."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")  # the planner takes it for a number of threads
    from nnunetv2.experiment_planning.experiment_planners.residual_unets import residual_encoder_unet_planners

    fingerprint = {
        "shapes_after_crop": [[200, 200, 200]] * NUM_CASES,
        "spacings": [[1.0, 1.0, 1.0]] * NUM_CASES,
        "median_relative_size_after_cropping": 1.0,
        "foreground_intensity_properties_per_channel": {},
    }
    (toy / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    planner = getattr(residual_encoder_unet_planners, f"nnUNetPlannerResEnc{preset}")(DATASET)
    with torch.device("meta"):
        planner.plan_experiment()
    schedule = write_schedule(tmp_path, [ORGANS[:2], ORGANS[2:]])
    steps = plan(DATASET, schedule, base_plans=planner.plans_identifier)
    for configuration in ("2d", "3d_fullres"):
        networks = []
        for step in steps:
            plans = json.loads(step.file.read_text())
            dataset_json = json.loads((toy / "dataset.json").read_text()) | {"labels": step.plan.labels}
            networks.append(plain_network(plans, dataset_json, configuration))
        first, second = networks
        assert type(first).__name__ == "ResidualEncoderUNet"
        assert len(encoder_stages(first)) == 1 + len(head_layers(first)) >= 6
        assert num_features(first) == 32
        with torch.device("meta"):
            widened = widen_heads(first.state_dict(), 2)
        assert num_output_channels(widened) == 5
        second.load_state_dict(widened, assign=True)
