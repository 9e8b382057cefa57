"""Which classes the plans of a stranger may name."""

import copy
import sys
from pathlib import Path

import pytest
from toy import base_plans

from nnunet_cil.errors import CILError
from nnunet_cil.host.networks import check_network_classes

FILE = Path("model/plans.json")


def plans_with(**names):
    """The toy's plans with another network class, or other names among its arguments."""
    plans = copy.deepcopy(base_plans())
    for settings in plans["configurations"].values():
        if "architecture" in settings:
            architecture = settings["architecture"]
            architecture["network_class_name"] = names.get("network", architecture["network_class_name"])
            architecture["arch_kwargs"].update({key: name for key, name in names.items() if key != "network"})
    return plans


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"network": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"},
        {"network": "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet"},  # has moved since
        {"conv_op": "torch.nn.Conv3d", "norm_op": "torch.nn.modules.batchnorm.BatchNorm3d", "nonlin": "torch.nn.GELU"},
        {"dropout_op": "torch.nn.modules.dropout.Dropout3d"},
        {"conv_op": "dynamic_network_architectures.building_blocks.residual.BasicBlockD"},
    ],
)
def test_nnunets_own_networks_and_layers_are_let_through(names):
    check_network_classes(FILE, plans_with(**names))


@pytest.mark.parametrize(
    "name",
    [
        "torch.hub.load",
        "logging.basicConfig",
        "os.system",
        "builtins.eval",
        "subprocess.Popen",
        "torch.load",
        "torch.nn.Linear.__init__.__globals__",
        "torch.nn.functional.conv3d",  # a function
        "torch.nn.modules.module.torch.hub.load",  # through an import of a module that may be named
        "torch.nn.modules.module.functools.partial",
        "torch.nn.modules.module.OrderedDict",  # a class, but of another package
        "torch.nnx.Conv3d",
        "dynamic_network_architectures.architectures.unet.torch.hub.load",
        "dynamic_network_architectures.architectures.unet.np.load",
        "dynamic_network_architectures_evil.unet.PlainConvUNet",
        "dynamic_network_architectures.no_such_module.no_such_class",
        "PlainConvUNet",
        "../unet.PlainConvUNet",
        "dynamic_network_architectures.architectures.unet.PlainConvUNet()",
        "",
        1,
        ["torch.nn.Conv3d"],
        {},
    ],
)
@pytest.mark.parametrize("key", ["network", "conv_op", "norm_op", "dropout_op", "nonlin"])
def test_any_other_name_is_refused_without_being_imported(name, key):
    with pytest.raises(CILError, match=r"^Configuration '\w+' in model/plans.json names .*--trust-package"):
        check_network_classes(FILE, plans_with(**{key: name}))


def test_a_layer_is_no_network():
    with pytest.raises(
        CILError, match=r"names 'torch.nn.Conv3d', which is no class of dynamic_network_architectures\."
    ):
        check_network_classes(FILE, plans_with(network="torch.nn.Conv3d"))


def test_every_configuration_is_looked_at():
    plans = base_plans()
    plans["configurations"]["other"] = copy.deepcopy(plans["configurations"]["2d"])
    plans["configurations"]["other"]["architecture"]["network_class_name"] = "os.system"
    with pytest.raises(CILError, match="Configuration 'other'"):
        check_network_classes(FILE, plans)


@pytest.mark.parametrize("missing", ["network_class_name", "arch_kwargs", "_kw_requires_import"])
def test_plans_that_do_not_describe_a_network_are_refused(missing):
    plans = copy.deepcopy(base_plans())
    del plans["configurations"]["2d"]["architecture"][missing]
    with pytest.raises(CILError, match="does not describe its network as nnU-Net does"):
        check_network_classes(FILE, plans)


def test_a_package_of_the_user_is_imported_only_when_it_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text("from torch import nn\nclass Net(nn.Module):\n    pass\ndef run(): pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    plans = plans_with(network="my_networks.Net")
    with pytest.raises(CILError, match=r"my_networks\.Net"):
        check_network_classes(FILE, plans, ["my_network"])
    assert "my_networks" not in sys.modules
    check_network_classes(FILE, plans, ["my_networks"])
    with pytest.raises(CILError, match=r"my_networks\.run"):
        check_network_classes(FILE, plans_with(network="my_networks.run"), ["my_networks"])
