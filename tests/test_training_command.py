"""The command that messages name is the one that trains the model."""

from nnunet_cil.training_command import train_arguments, train_command

MODEL = ("Dataset017_Toy", "2d", 0, "nnUNetTrainerPGCD", "nnUNetPlans_toy_step1")


def test_a_command_can_be_pasted_into_a_shell():
    assert train_command(*MODEL) == "nnUNetv2_train Dataset017_Toy 2d 0 -tr nnUNetTrainerPGCD -p nnUNetPlans_toy_step1"
    assert "'Dataset017_Toy one'" in train_command("Dataset017_Toy one", *MODEL[1:])
    assert train_arguments(*MODEL)[:3] == ["Dataset017_Toy", "2d", "0"]


def test_a_device_is_named_before_other_options_unless_it_is_nnunets_default():
    assert train_command(*MODEL, "--c", device="cpu").endswith("step1 -device cpu --c")
    assert "-device" not in train_command(*MODEL, device="cuda")
