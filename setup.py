"""Maps plans/ and trainers/ of the repository into the package, so that no generic folder lands in site-packages."""

from setuptools import find_packages, setup

if __name__ == "__main__":
    setup(
        packages=[*find_packages(include=["nnunet_cil", "nnunet_cil.*"]), "nnunet_cil._plans", "nnunet_cil._trainers"],
        package_dir={"nnunet_cil._plans": "plans", "nnunet_cil._trainers": "trainers"},
        package_data={
            "nnunet_cil": ["py.typed"],
            "nnunet_cil._plans": ["*.json"],
            "nnunet_cil.evaluation": ["*.jinja"],
        },
    )
