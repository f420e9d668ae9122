"""Networks of the user's own, by `package.module:function`: whatever the function returns, if fx can trace it."""

import importlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from ttl_deploy.errors import UsageError
from ttl_deploy.models.backbones.backbone import Backbone

_FORM = "package.module:function, where the function needs no arguments and returns a torch.nn.Module"


def find_own(name: str) -> Backbone:
    """Return the network that a function of the user's builds; modules in the working folder are found too.

    Raises `UsageError` where it cannot be imported or is not of the expected form.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise UsageError(f"unknown backbone {name!r}: an own network is given as {_FORM}")
    function = _import(name, module_name, attribute)
    return Backbone(name=name, build=partial(_build, name, function))


def _import(name: str, module_name: str, attribute: str) -> Callable[[], Any]:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except Exception as error:  # the user's own code runs here, and may raise anything
        raise UsageError(f"backbone {name!r}: {_explain_import(error, module_name, here)}") from error
    if not callable(found):
        raise UsageError(f"backbone {name!r} is a {type(found).__name__}: give {_FORM}")
    function: Callable[[], Any] = found
    return function


def _explain_import(error: Exception, module_name: str, here: str) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module_name}.".startswith(f"{error.name}."):
        return (
            f"there is no module {error.name!r} in {here} or among the installed packages: "
            f"run from the folder that holds it, or install it. An own network is given as {_FORM}"
        )
    return f"importing it fails ({type(error).__name__}: {error}). An own network is given as {_FORM}"


def _build(name: str, function: Callable[[], Any], _image_size: int) -> nn.Module:
    try:
        network = function()
    except Exception as error:  # the user's own code runs here, and may raise anything
        raise UsageError(
            f"backbone {name!r} cannot be built ({type(error).__name__}: {error}): give {_FORM}"
        ) from error
    if not isinstance(network, nn.Module):
        raise UsageError(f"backbone {name!r} returned a {type(network).__name__}, not a torch.nn.Module: give {_FORM}")
    return network
