"""``nnunet_cil trainers``."""

from nnunet_cil.cli import main
from nnunet_cil.shipped import trainers_folder


def test_trainers_prints_the_folder_that_nnunet_needs(capsys):
    assert main(["trainers"]) == 0
    folder = capsys.readouterr().out.strip()
    assert folder == str(trainers_folder())
    assert (trainers_folder() / "nnunet_cil_trainers.py").is_file()
