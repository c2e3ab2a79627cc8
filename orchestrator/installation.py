"""Says in one line what this Python lacks of what the project needs, so that a wrong Python ends in no traceback."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

PACKAGES = {
    "alembic": "alembic",
    "click": "click",
    "cv2": "opencv-python-headless",
    "faster_coco_eval": "faster-coco-eval",
    "grpc": "grpcio",
    "huggingface_hub": "huggingface-hub",
    "jinja2": "jinja2",
    "markupsafe": "markupsafe",
    "matplotlib": "matplotlib",
    "mlflow": "mlflow",
    "numpy": "numpy",
    "optuna": "optuna",
    "pandas": "pandas",
    "PIL": "pillow",
    "psutil": "psutil",
    "psycopg": "psycopg",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "pydantic_core": "pydantic-core",
    "ray": "ray",
    "rich": "rich",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "sqlalchemy": "sqlalchemy",
    "timm": "timm",
    "torch": "torch",
    "torchmetrics": "torchmetrics",
    "torchvision": "torchvision",
    "uvicorn": "uvicorn",
    "yaml": "pyyaml",
}
"""What the code imports, and the package that brings it; without `transformers`, for which the one task asks itself."""
_ROOT = Path(__file__).parents[1]


def problem(error: ImportError) -> str | None:
    """One line if a package of PACKAGES is not installed, or at a version that the project does not take.

    None for every other error: a name that our own code misspells is a mistake of ours, and needs its traceback.
    """
    name = (error.name or "").partition(".")[0]
    if name not in PACKAGES:
        return None
    package = PACKAGES[name]
    if importlib.util.find_spec(name) is None:
        return f"the package {package} is not installed in {sys.executable}; {_remedy()}"
    try:
        version, wanted = metadata.version(package), _requirements().get(package, "")
    except metadata.PackageNotFoundError:
        return None
    if fits(version, wanted):
        return None
    return f"{sys.executable} has {package} {version}, and the project needs {wanted}; {_remedy()}"


def fits(version: str, wanted: str) -> bool:
    """Whether a version such as 2.1.3 lies within bounds such as `>=2.1,<3`. Bounds of any other form fit. Not by the
    library packaging, which a Python with half of the packages may lack."""
    bounds = re.findall(r"(>=|<)\s*([\d.]+)", wanted)
    return all((_numbers(version) >= _numbers(limit)) is (sign == ">=") for sign, limit in bounds)


def _numbers(version: str) -> list[int]:
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3]]
    return numbers + [0] * (3 - len(numbers))


def _requirements() -> dict[str, str]:
    """Bounds by package, as a checkout states them, or else the installed project."""
    stated = _ROOT / "pyproject.toml"
    if stated.is_file():
        lines = tomllib.loads(stated.read_text(encoding="utf-8"))["project"]["dependencies"]
    else:
        lines = metadata.requires("orchestrator") or []
    found = (re.match(r"([\w.-]+)(?:\[.*?\])?\s*([^;]*)", line) for line in lines)
    return {match[1].lower(): match[2].strip() for match in found if match}


def _remedy() -> str:
    python = shlex.quote(sys.executable)
    if (_ROOT / "pyproject.toml").is_file():
        return (
            "run the Python that the project is installed in (`make install`: .venv/bin/python), or install it here: "
            f"{python} -m pip install -e {shlex.quote(str(_ROOT))}"
        )
    return f"install the project there again, from its folder: {python} -m pip install ."
