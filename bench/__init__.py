"""Which DCGAN training tricks help, by how much, at what cost: an ablation benchmark.

`bench.load("results/digits")` gives the tables of a results folder as pandas data frames.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Late, so that `import bench` and `bench --help` do not wait for pandas.
    if name == "load":
        from bench.results import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
