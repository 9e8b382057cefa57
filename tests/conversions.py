"""Conversions of the downloads, and what lies in their folders."""

import json

from nnunet_cil.workflows.data.convert import convert


def converted(name, source, **options):
    """Converts, and returns the data set's folder, its dataset.json, and the text of the findings."""
    done = convert(name, source, 40, options=options)
    folder = done.converted.folder
    return folder, json.loads((folder / "dataset.json").read_text()), done.findings.text()


def convert_mine(source, **keywords):
    """Converts a folder that ``write_generic`` wrote."""
    return convert("generic", source, 5, options={"names": source / "names.json"}, **keywords)


def cases(folder, part="Tr"):
    """Returns the names of the cases in a raw data set."""
    path = folder / f"labels{part}"
    return sorted(f.name.removesuffix(".nii.gz") for f in path.iterdir()) if path.is_dir() else []


def classes(content):
    """Returns the classes of a dataset.json."""
    return tuple(name for name in content["labels"] if name != "background")


def folds(folder):
    """Returns the folds that the conversion wrote."""
    file = folder / "splits_final.json"
    return json.loads(file.read_text()) if file.is_file() else []
