"""Archives are unpacked safely, and nothing of them stays behind."""

import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from downloads import (
    ct,
    label_map,
    read,
)

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.data.convert import convert


def test_an_archive_is_read_and_leaves_nothing_behind(mine, raw, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "download"), "zip", tmp_path, "mine")
    names = tmp_path / "names.json"
    shutil.copy(mine / "names.json", names)
    shutil.rmtree(mine)
    convert("generic", Path(archive), 5, options={"names": names})
    assert os.listdir(raw) == ["Dataset005_Mine"]
    assert np.array_equal(read(raw / "Dataset005_Mine/imagesTr/case1_0000.nii.gz"), ct(1))
    assert np.array_equal(read(raw / "Dataset005_Mine/labelsTr/case1.nii.gz"), label_map(1, 2))


def test_a_damaged_archive_is_refused(raw, tmp_path):
    archive = tmp_path / "broken.zip"
    with zipfile.ZipFile(archive, "w") as z:
        z.writestr("images/a.nii.gz", bytes(999))
    content = bytearray(archive.read_bytes())
    content[500] = 1
    archive.write_bytes(content)
    with pytest.raises(CILError, match=r"broken\.zip cannot be unpacked"):
        convert("generic", archive, 5, options={"names": tmp_path / "n.json"})
    assert os.listdir(raw) == []


@pytest.mark.parametrize("has_filter", [True, False])
@pytest.mark.parametrize("kind", ["outside", "link"])
def test_nothing_in_a_tar_is_unpacked_elsewhere(raw, tmp_path, monkeypatch, has_filter, kind):
    if not has_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    (tmp_path / "a.txt").write_text("x")
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        if kind == "outside":
            archive.add(tmp_path / "a.txt", "../../escaped.txt")
        else:
            link = tarfile.TarInfo("b")
            link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
            archive.addfile(link)
    with pytest.raises(CILError, match=r"d\.tar cannot be unpacked"):
        convert("generic", tmp_path / "d.tar", 5, options={"names": tmp_path / "n.json"})
    assert not list(tmp_path.rglob("escaped.txt"))
