"""The store of the teacher's volumes: what is kept for whom, and what goes."""

import errno
import os

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.training.volumes.store import FOLDER, Claim, VolumeStore

DATASET = "Dataset017_Toy"


@pytest.fixture
def store(tmp_path, monkeypatch):
    (tmp_path / "preprocessed").mkdir()
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    return VolumeStore(DATASET)


def fold_of(tmp_path, trainer, plans="p_step1", fold=0):
    return tmp_path / "results" / DATASET / f"{trainer}__{plans}__3d_fullres" / f"fold_{fold}"


def teacher_of(tmp_path, name="T"):
    return fold_of(tmp_path, name, "p_step0") / "checkpoint_final.pth"


def finish(fold):
    fold.mkdir(parents=True)
    (fold / "checkpoint_final.pth").touch()


def made(store, teacher, **recipe):
    """Puts a volume into a recipe's folder; returns the folder."""
    folder = store.recipe_folder({"teacher": str(teacher), **recipe}, teacher)
    (folder / "key").mkdir()
    (folder / "key" / "case.b2nd").write_bytes(b"x")
    return folder


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_refused_with_what_helps(store, tmp_path, monkeypatch, number):
    def write_json(file, _):
        raise OSError(number, os.strerror(number), str(file))

    monkeypatch.setattr("nnunet_cil.training.volumes.store.write_json", write_json)
    with pytest.raises(CILError, match=rf"{store.root} cannot be written \({os.strerror(number)}\).*teacher_volumes"):
        store.claim(Claim.of(fold_of(tmp_path, "A"), teacher_of(tmp_path)))


def test_each_part_of_a_recipe_has_its_place(store, tmp_path):
    recipe = {"teacher": "abc", "configuration": {"patch_size": [8, 8, 8]}, "device": "cpu", "stray_free": [1]}
    other = {"teacher": "abd", "configuration": {"patch_size": [8, 8, 9]}, "device": "cuda", "stray_free": [1, 2]}
    teacher = teacher_of(tmp_path)
    folders = [store.recipe_folder({**recipe, key: value}, teacher) for key, value in other.items()]
    folders.append(store.recipe_folder(recipe, teacher))
    assert len(set(folders)) == 5
    assert store.recipe_folder(dict(reversed(recipe.items())), teacher) == folders[-1]


def test_volumes_go_with_the_last_training_that_needs_their_teacher(store, tmp_path):
    teacher = teacher_of(tmp_path)
    first, second = fold_of(tmp_path, "A"), fold_of(tmp_path, "B")
    for fold in (first, second):
        store.claim(Claim.of(fold, teacher))
    folder, other = made(store, teacher, stray_free=[]), made(store, teacher, stray_free=[1])
    elsewhere = made(store, teacher_of(tmp_path, "U"))
    store.claim(Claim.of(fold_of(tmp_path, "C"), teacher_of(tmp_path, "U")))
    finish(first)
    store.release(first)
    assert folder.is_dir()
    assert other.is_dir()
    finish(second)
    store.release(second)
    assert not folder.exists()
    assert not other.exists()
    assert (elsewhere / "key" / "case.b2nd").is_file()
    store.release(fold_of(tmp_path, "C"))
    assert not (tmp_path / "preprocessed" / DATASET / FOLDER).exists()
    assert list((tmp_path / "preprocessed" / DATASET).iterdir()) == []


def test_a_training_that_is_finished_or_a_claim_that_is_damaged_holds_nothing(store, tmp_path):
    teacher, forgotten = teacher_of(tmp_path), fold_of(tmp_path, "A")
    store.claim(Claim.of(forgotten, teacher))
    finish(forgotten)
    (store.root / "needed_by" / "damaged.json").write_text('{"name": ')
    (store.root / "needed_by" / "other.json").write_text('{"teacher": "x"}')
    folder = made(store, teacher)
    store.release(fold_of(tmp_path, "B"))
    assert not folder.exists()


def test_a_claim_that_comes_while_volumes_are_removed_gets_them_back(store, tmp_path, monkeypatch):
    teacher = teacher_of(tmp_path)
    folder = made(store, teacher)
    answers = iter([False, True])
    monkeypatch.setattr(VolumeStore, "_is_needed", lambda *_: next(answers))
    store.release(fold_of(tmp_path, "A"))
    assert (folder / "key" / "case.b2nd").is_file()
    assert [p.name for p in store.root.parent.iterdir()] == [FOLDER]


def test_a_release_without_volumes_makes_no_folder(store, tmp_path):
    store.release(fold_of(tmp_path, "A"))
    assert list((tmp_path / "preprocessed").iterdir()) == []
