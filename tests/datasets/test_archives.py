"""Archives are unpacked safely, and nothing of them stays behind."""

import gzip
import io
import json
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path, PureWindowsPath
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


@pytest.mark.parametrize("kind", ["outside", "link"])
def test_nothing_in_a_tar_is_unpacked_elsewhere(raw, tmp_path, kind):
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


@pytest.mark.parametrize("zipped", [True, False])
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


def pack(archive: Path, entries: list[tuple[str, str, str]]) -> Path:
    """Packs entries of a name, a kind (file, link, hard link or fifo), and a content or target."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as z, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that are there twice
            for name, kind, text in entries:
                entry = zipfile.ZipInfo(name)
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16 if kind == "link" else 0o644 << 16
                z.writestr(entry, text)
        return archive
    kinds = {"link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE, "file": tarfile.REGTYPE}
    with tarfile.open(archive, "w") as t:
        for name, kind, text in entries:
            header = tarfile.TarInfo(name)
            header.type, header.linkname = kinds[kind], text if "link" in kind else ""
            header.size = len(text) if kind == "file" else 0
            t.addfile(header, io.BytesIO(text.encode()))
    return archive


HOSTILE = {
    "a link through a later link": [("in", "link", "here/../victim.txt"), ("here", "link", "."), ("in", "file", "x")],
    "a folder through a later link": [("in", "link", "here/.."), ("here", "link", "."), ("in/x.txt", "file", "x")],
    "a link to the folder above": [("a/b/up", "link", "../../.."), ("a/b/up/x.txt", "file", "x")],
    "a link that is absolute": [("x", "link", "/etc/hostname")],
    "a link to itself": [("x", "link", "x")],
    "a loop of links": [("x", "link", "y"), ("y", "link", "z"), ("z", "link", "x")],
    "a link to its own folder": [("a/x", "link", "../a")],
    "a link to nothing": [("x", "link", "a/y")],
    "a link twice": [("f", "file", "1"), ("x", "link", "f"), ("x", "link", "f")],
    "a link where a file is": [("f", "file", "1"), ("x", "file", "2"), ("x", "link", "f")],
    "a file twice": [("a/f", "file", "1"), ("a/f", "file", "2")],
    "a file as a folder": [("a", "file", "1"), ("a/f", "file", "2")],
    "a name beyond the disk's": [("n" * 300, "file", "1")],
    "folders beyond all use": [("d/" * 500 + "f", "file", "1")],
    "a path out": [("a/../../x.txt", "file", "x")],
    "an absolute path": [("/x.txt", "file", "x")],
}
IN_TAR = {
    "a device": [("x", "fifo", "")],
    "a hard link out": [("x", "hard link", "../victim.txt")],
    "a hard link through a link": [("a", "link", ".."), ("x", "hard link", "a/victim.txt"), ("x", "file", "x")],
    "links longer than a path": [
        *(("/".join(["d" * 240] * i + [s]), "link", "d" * 240) for i, s in enumerate("abcdefghijklmnop")),
        ("/".join([*"abcdefghijklmnop", "l" * 254]), "link", "../" * 16),
        ("escape", "link", "/".join([*"abcdefghijklmnop", "l" * 254]) + "/../victim.txt"),
        ("x", "hard link", "escape"),
        ("x", "file", "x"),
    ],
}


@pytest.mark.parametrize(
    ("name", "what"),
    [*((f"d.{k}", what) for k in ("zip", "tar") for what in HOSTILE), *(("d.tar", what) for what in IN_TAR)],
)
def test_an_archive_that_leads_elsewhere_is_refused_and_touches_nothing(tmp_path, name, what):
    (tmp_path / "victim.txt").write_text("precious")
    (tmp_path / "out").mkdir()
    archive = pack(tmp_path / name, (HOSTILE | IN_TAR)[what])
    with pytest.raises(CILError, match=rf"{name} cannot be unpacked: .+ and give the folder\.$"):
        archives.unpack(archive, tmp_path / "out")
    assert (tmp_path / "victim.txt").read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == [name, "out", "victim.txt"]


@pytest.mark.parametrize("name", ["d.zip", "d.tar"])
def test_links_that_lead_to_each_other_and_to_folders_are_followed(tmp_path, name):
    entries = [("x", "link", "a/y"), ("a/y", "link", "../b/f"), ("c/to_b", "link", "../b"), ("b/f", "file", "1")]
    (tmp_path / "out").mkdir()
    archives.unpack(pack(tmp_path / name, entries), tmp_path / "out")
    for path in ("x", "a/y", "c/to_b/f"):
        assert (tmp_path / "out" / path).read_text() == "1"


@pytest.mark.parametrize("name", ["C:x", "C:\\x", "a\\..\\..\\x", "\\\\host\\share\\x", "\\x", "../x", "/x"])
def test_what_leads_elsewhere_on_windows_is_refused_there(name):
    with pytest.raises(ValueError, match="leads outside"):
        archives.inner_path(name, PureWindowsPath)
    assert archives.inner_path("a\\b", PureWindowsPath) == PureWindowsPath("a/b")


def test_a_tar_whose_names_would_fill_the_memory_is_refused(tmp_path):
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2 * 1024**2
    with gzip.open(tmp_path / "d.tar.gz", "wb") as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(header.size))
    assert archives.is_archive(tmp_path / "d.tar.gz")
    (tmp_path / "out").mkdir()
    with pytest.raises(CILError, match="the header of an entry is too large"):
        archives.unpack(tmp_path / "d.tar.gz", tmp_path / "out")


@pytest.mark.parametrize("ending", ["zip", "tar.gz", "tar.bz2"])
def test_an_archive_with_changed_bytes_is_refused(tmp_path, ending):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.nii").write_bytes(os.urandom(1_500_000))
    formats = {"zip": "zip", "tar.gz": "gztar", "tar.bz2": "bztar"}
    archive = Path(shutil.make_archive(str(tmp_path / "d"), formats[ending], tmp_path, "images"))
    content = bytearray(archive.read_bytes())
    content[1_400_000] ^= 1
    archive.write_bytes(content)
    (tmp_path / "out").mkdir()
    assert archives.is_archive(archive)
    with pytest.raises(CILError, match=rf"d\.{ending} cannot be unpacked: .+ and give the folder"):
        archives.unpack(archive, tmp_path / "out")


def test_a_zip_whose_list_of_files_is_damaged_is_refused(raw, tmp_path):
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as z:
        z.writestr("a", "1")
    content = (tmp_path / "d.zip").read_bytes()
    (tmp_path / "d.zip").write_bytes(content.replace(b"PK\x01\x02", b"PK\x00\x00"))
    with pytest.raises(CILError, match=r"d\.zip cannot be unpacked"):
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
