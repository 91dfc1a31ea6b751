"""Files of benchmarks/ as modules."""

import importlib.util
import sys


def benchmark_module(repository, name):
    """A file of benchmarks/ as a module; the folder's names are also others', so it is no path."""
    location = importlib.util.spec_from_file_location(name, repository / f"benchmarks/{name}.py")
    module = importlib.util.module_from_spec(location)
    sys.modules[name] = module
    location.loader.exec_module(module)
    return module
