"""``nnunet_cil convert``: an ID that is taken."""

from downloads import write_generic

from nnunet_cil.cli import main


def test_convert_refuses_an_id_that_is_taken(toy, tmp_path, capsys):
    source = write_generic(tmp_path / "mine")
    assert main(["convert", "generic", str(source), "17", "--names", str(source / "names.json")]) == 1
    assert "The ID 17 belongs to Dataset017_Toy" in capsys.readouterr().err
