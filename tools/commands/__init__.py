"""Command lines: a module or a package for each executable in tools/."""

import sys
from importlib.util import find_spec
from pathlib import Path

# what every command may need before its work begins; torch and the like are installed with them
_PACKAGES = ("typer", "pydantic", "numpy", "yaml", "rich")

if _missing := [name for name in _PACKAGES if find_spec(name) is None]:
    print(
        f"error: {sys.executable} lacks {', '.join(_missing)}: run `make install` in {Path(__file__).parents[2]}, "
        "or name another environment: export TRAINYARD_VENV=FOLDER",
        file=sys.stderr,
    )
    sys.exit(2)
