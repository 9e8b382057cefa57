"""The folder of a stranger's model: no code of it runs, nothing is written elsewhere, and what is wrong is said."""

import copy
import dataclasses
import json

import pytest
import torch
from toy import base_plans, init_args
from toy_records import RECORD

from nnunet_cil.errors import CILError
from nnunet_cil.host.networks import plain_network
from nnunet_cil.host.reading.readers import dataset_reader, named_reader
from nnunet_cil.workflows.compare.compare import CompareOptions, compare
from nnunet_cil.workflows.models.export import export
from nnunet_cil.workflows.models.info import describe
from nnunet_cil.workflows.models.trained_model import read_model


@pytest.fixture(scope="module")
def weights():
    """Those of the network that nnU-Net builds from the toy's plans."""
    described = init_args(base_plans())["dataset_json"]
    return {
        k: torch.zeros(t.shape) for k, t in plain_network(base_plans(), described, "3d_fullres").state_dict().items()
    }


@pytest.fixture
def write(tmp_path, weights):
    """Returns a function that writes a model, with other plans or another checkpoint."""

    def write_model(plans=None, fold="fold_0", arguments=(), **content):
        folder = tmp_path / "foreign"
        (folder / fold).mkdir(parents=True)
        told = copy.deepcopy(init_args(base_plans())) | dict(arguments)
        content = {"network_weights": weights, "init_args": told, "trainer_name": "nnUNetTrainer"} | content
        torch.save(content, folder / fold / "checkpoint_final.pth")
        (folder / "plans.json").write_text(json.dumps(plans or base_plans()))
        (folder / "dataset.json").write_text(json.dumps(init_args(base_plans())["dataset_json"]))
        return folder

    return write_model


def refuse(tmp_path, model, message, *, also_info=False):
    """Every command refuses a model, and leaves everything as it is."""
    before = sorted(tmp_path.rglob("*"))
    calls = [lambda: export(model, tmp_path / "o"), lambda: export(model, tmp_path / "o", zipped=True)]
    calls += [lambda: read_model(model), *([lambda: describe(model)] if also_info else [])]
    calls += [lambda: compare(CompareOptions(model_a=model, model_b=model, output=tmp_path / "o"))]
    for call in calls:
        with pytest.raises(CILError, match=message):
            call()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_stranger_s_model_that_is_as_it_should_be_is_read(write, tmp_path):
    model = write()
    assert read_model(model).classes
    assert "SHA-256" in describe(model)
    assert (export(model, tmp_path / "o") / "plans.json").is_file()


def changed(**settings):
    """Plans whose configuration has other settings."""
    plans = copy.deepcopy(base_plans())
    plans["configurations"]["3d_fullres"].update(settings)
    return plans


STAGES = len(base_plans()["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"])


def built(**arguments):
    """Plans whose network is built with other arguments."""
    plans = copy.deepcopy(base_plans())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"].update(arguments)
    return plans


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ({"dataset_name": ".ssh"}, "dataset_name in plans.json"),
        ({"dataset_name": "Dataset017\u2215.."}, "dataset_name in plans.json"),
        ({"dataset_name": "Toy"}, "dataset_name in plans.json"),
        ({"plans_name": "aux"}, "plans_name in plans.json"),
        ({"plans_name": "my__plans"}, "plans_name in plans.json"),
        ({"plans_name": "--help"}, "plans_name in plans.json"),
        ({"plans_name": "p" * 190}, "the name of the model's folder"),
        ({"label_manager": "np"}, "names 'np' for 'label_manager'"),
        ({"label_manager": "LabelManager.__init__"}, "for 'label_manager'"),
        ({"image_reader_writer": "isfile"}, "names 'isfile' for 'image_reader_writer'"),
        (changed(preprocessor_name="shutil"), "names 'shutil' for 'preprocessor_name'"),
        (changed(preprocessor_name=["DefaultPreprocessor", "os"]), "names 'os' for 'preprocessor_name'"),
        (changed(normalization_schemes=["ZScoreNormalization", "abstractmethod"]), "names 'abstractmethod'"),
        (changed(resampling_fn_seg="recursive_find_python_class"), "for 'resampling_fn_seg'"),
        (changed(resampling_fn_data="../../x"), "for 'resampling_fn_data'"),
        (changed(inherits_from="3d_fullres"), "cannot be read by nnU-Net .*ircular"),
        (built(n_stages=-2), "has -2 for 'n_stages'"),
        (built(n_conv_per_stage=[10**9, 1]), "for 'n_conv_per_stage'"),
        (built(kernel_sizes="torch.hub.load"), "nnU-Net cannot build the network of '3d_fullres'"),
        (built(norm_op_kwargs={"deep": [["torch.hub.load"]]}), "nnU-Net cannot build the network"),
        (built(secret={"a": ["os.system"]}), "nnU-Net cannot build the network"),
        (built(features_per_stage=[10**6] * STAGES), "plain nnU-Net builds another network"),
    ],
)
def test_plans_that_name_or_build_something_else_are_refused(write, tmp_path, plans, message):
    refuse(tmp_path, write({**base_plans(), **plans}), message)


STATE = {"classes": ["kidney"], "lineage": [], "prototypes": None, "method_state": {}}


def record(**told):
    """A state whose lineage holds a record with other content."""
    return {**STATE, "lineage": [{**dataclasses.replace(RECORD).to_json(), **told}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"cil": "x"}, "holds 'x', but must hold an object"),
        ({"cil": {**STATE, "schema_version": "2"}}, "for 'schema_version', but it must be a whole number"),
        ({"cil": {**STATE, "classes": {"a": 1}}}, "for 'classes', but it must be a list"),
        ({"cil": {**STATE, "classes": [torch.zeros(1)]}}, "no text, number, list or object"),
        ({"cil": {**STATE, "lineage": {}}}, "for 'lineage', but it must be a list"),
        ({"cil": {**STATE, "prototypes": [1]}}, "prototypes, or a method's state"),
        ({"cil": {**STATE, "prototypes": {"prototypes": torch.zeros(2, 3), "counts": torch.zeros(5)}}}, "prototypes"),
        ({"cil": record(case_hashes={"key": "xyz", "training": [], "validation": []})}, "in hexadecimal"),
        ({"cil": record(plans="../../x")}, "has '../../x' for 'plans'"),
        ({"cil": record(dataset="a\n```\n<script>")}, "for 'dataset', which is no such name"),
        ({"cil": record(classes=["\x1b[2J"])}, "has the class"),
        ({"cil": record(previous_sha256="`<b>")}, "which is no hash"),
        ({"trainer_name": "x; touch y"}, "has the trainer 'x; touch y'"),
        ({"trainer_name": None}, "has the trainer None"),
        ({"network_weights": [1]}, "no proper weights"),
        ({"network_weights": {"a": 1}}, "no proper weights"),
        ({"inference_allowed_mirroring_axes": "01"}, "no proper axes to mirror"),
        ({"arguments": {"configuration": ["2d"]}}, "has the configuration"),
        ({"arguments": {"fold": "../../x"}}, "has the fold '../../x'"),
        ({"arguments": {"fold": True}}, "has the fold True"),
    ],
)
def test_a_checkpoint_that_holds_something_else_is_refused(write, tmp_path, content, message):
    refuse(tmp_path, write(**content), message, also_info=True)


@pytest.mark.parametrize("fold", ["fold_$(touch x)", "fold_..", "fold_-1", "fold_0 copy"])
def test_only_folds_of_nnunet_are_taken_for_such(write, tmp_path, fold):
    refuse(tmp_path, write(fold=fold), "has no checkpoint_final.pth")


@pytest.mark.parametrize("name", ["np", "join", "load_json", "tifffile", "BaseReaderWriter", "__doc__", "../x", ""])
def test_nothing_but_a_reader_is_called_as_a_reader(name):
    with pytest.raises(CILError, match="has no reader"):
        named_reader(name)
    described = {"file_ending": ".nii.gz", "overwrite_image_reader_writer": name, "channel_names": {"0": "CT"}}
    assert type(dataset_reader(described, None)).__name__ == "SimpleITKIO"
