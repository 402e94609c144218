"""The extra `evals`: libraries that an installation may lack."""

import importlib.util

from megatron_patches.errors import Missing

INSTALL = "pip install -c constraints.txt -e .[evals]"


def refuse_without(what: str, **libraries: str) -> None:
    """Looks for libraries and imports none.

    Args:
        what: what needs them, in the plural, such as "comparisons".
        libraries: by the name of the module, the name that pip knows.

    Raises:
        Missing: the first that is not installed, with the command that installs it.
    """
    for module, name in libraries.items():
        if importlib.util.find_spec(module) is None:
            raise Missing(f"{what} need {name}, which is not installed: {INSTALL}")
