"""`fastconv info`: the build, the optional packages, and where data would come from."""

from __future__ import annotations

from importlib import metadata

from .. import show_config
from ..data import cifar, datasets, sources

OPTIONAL_PACKAGES = ("cupy-cuda13x", "matplotlib", "ml_dtypes", "pooch", "rich", "safetensors")


def run() -> int:
    """Print it all. Returns 0."""
    show_config()
    print("\noptional packages")
    for name in OPTIONAL_PACKAGES:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = "not installed"
        print(f"  {name:<14} {version}")
    print("\ndata\n  mnist_sample   embedded in the package")
    try:
        print(f"  cache folder   {sources.cache_folder()}")
        print(f"  mnist          {datasets.locate(datasets.MNIST)}")
        print(f"  fashion_mnist  {datasets.locate(datasets.FASHION_MNIST)}")
        print(f"  cifar10        {cifar.locate()}")
    except (OSError, ModuleNotFoundError) as error:
        print(f"  {error}")
    return 0
