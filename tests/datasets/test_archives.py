"""Archives are unpacked safely, and nothing of them stays behind."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from downloads import (
    ct,
    label_map,
    read,
    save,
)

from nnunet_cil.datasets import archives
from nnunet_cil.errors import CILError
from nnunet_cil.owners import current_owner, start_of
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


def write_linked(folder: Path, *, zipped: bool) -> Path:
    """Packs three cases: the second's image is a link, and the label files are links, too."""
    archive = folder / ("linked.zip" if zipped else "linked.tar")
    files = {f"images/case{i}.nii.gz": None for i in (1, 2, 3)} | {f"labels/case{i}.nii.gz": None for i in (1, 2, 3)}
    links = {
        "images/case2.nii.gz": "../stored/image2.nii.gz",
        **{f: f"../stored/{Path(f).name}" for f in files if "labels" in f},
    }
    stored = [save(ct(i), folder / f"images/case{i}.nii.gz") for i in (1, 3)]
    stored += [save(ct(2), folder / "stored/image2.nii.gz")]
    stored += [save(label_map(1, 2), folder / f"stored/case{i}.nii.gz") for i in (1, 2, 3)]
    if zipped:
        with zipfile.ZipFile(archive, "w") as z:
            for name, target in links.items():
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                z.writestr(entry, target)
            for file in stored:
                z.write(file, file.relative_to(folder))
    else:
        with tarfile.open(archive, "w") as t:
            for name, target in links.items():
                entry = tarfile.TarInfo(name)
                entry.type, entry.linkname = tarfile.SYMTYPE, target
                t.addfile(entry)
            for file in stored:
                t.add(file, file.relative_to(folder))
    return archive


needs_filter = pytest.mark.skipif(not hasattr(tarfile, "data_filter"), reason="this Python refuses every link in a tar")


@pytest.mark.parametrize("zipped", [True, pytest.param(False, marks=needs_filter)])
def test_links_inside_an_archive_become_files(raw, tmp_path, zipped):
    names = tmp_path / "names.json"
    names.write_text('{"name": "Mine", "labels": {"liver": 1, "spleen": 2}}')
    convert("generic", write_linked(tmp_path, zipped=zipped), 5, options={"names": names})
    assert os.listdir(raw) == ["Dataset005_Mine"]
    written = sorted((raw / "Dataset005_Mine").rglob("*.nii.gz"))
    assert len(written) == 6
    assert not any(file.is_symlink() for file in written)
    assert np.array_equal(read(raw / "Dataset005_Mine/imagesTr/case2_0000.nii.gz"), ct(2))


@pytest.mark.parametrize("target", ["/etc/hostname", "../../secret.txt", "a/../../../secret.txt"])
def test_a_link_in_a_zip_does_not_lead_outside(raw, tmp_path, target):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as z:
        entry = zipfile.ZipInfo("images/a.nii.gz")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        z.writestr(entry, target)
    with pytest.raises(CILError, match=r"d\.zip cannot be unpacked: the link 'images/a.nii.gz' leads outside of it"):
        convert("generic", tmp_path / "d.zip", 5, options={"names": tmp_path / "n.json"})
    assert os.listdir(raw) == []


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_ENTRIES", 2, "3 files"),
        ("FREE_BYTES", 1000, "far more than a download of its size"),
        ("room", 10_000, "GB that are free"),
    ],
)
def test_an_archive_that_unpacks_to_too_much_is_refused_on_the_way(
    raw, tmp_path, monkeypatch, kind, limit, value, message
):
    for i in range(4):
        (tmp_path / "bomb").mkdir(exist_ok=True)
        (tmp_path / f"bomb/{i}.nii").write_bytes(bytes(200_000))
    archive = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as z:
            for file in sorted((tmp_path / "bomb").iterdir()):
                z.write(file, file.name)
    else:
        with tarfile.open(archive, "w:gz") as t:
            for file in sorted((tmp_path / "bomb").iterdir()):
                t.add(file, file.name)
    if limit == "room":
        monkeypatch.setattr(archives, "shutil", SimpleNamespace(disk_usage=lambda _folder: SimpleNamespace(free=value)))
    else:
        monkeypatch.setattr(archives, limit, value)
    with pytest.raises(CILError, match=message):
        convert("generic", archive, 5, options={"names": tmp_path / "n.json"})
    assert os.listdir(raw) == []


def test_an_archive_of_zeros_within_the_limits_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "zeros.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("label.nii", bytes(5_000_000))  # 1000 times smaller, but little
    (tmp_path / "out").mkdir()
    archives.unpack(tmp_path / "zeros.zip", tmp_path / "out")
    assert (tmp_path / "out/label.nii").stat().st_size == 5_000_000


def test_two_conversions_to_one_id_at_once(mine, raw):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = replace(current_owner(), pid=process.pid, start=start_of(process.pid))
    lock = raw / ".Dataset005.in_use.json"
    lock.write_text(
        json.dumps({"process": owner.token, "host": "here", "since": "today", "command": "nnunet_cil convert"})
    )
    with pytest.raises(CILError, match=rf"^Data set 005 is in use by process {process.pid} on here since today"):
        convert("generic", mine, 5, options={"names": mine / "names.json"})
    assert os.listdir(raw) == [lock.name]
    process.communicate(b"\n")
    convert("generic", mine, 5, options={"names": mine / "names.json"})
    assert os.listdir(raw) == ["Dataset005_Mine"]
