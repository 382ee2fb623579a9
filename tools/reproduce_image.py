"""Run the steps of the Dockerfile without Docker, as another user than root, and try what they make.

Of the stage that builds every RUN is run as it stands, in a folder that takes the place of ``/``; of the last stage its
environment, its entry point and its command. What apt-get would install is only looked up.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.dockerfile import Stage, apt_packages, read_dockerfile

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 65534
COMPILERS = ("gcc", "cc", "g++", "clang", "make")
OF_THE_DISTRIBUTION = ("useradd", "apt-get")
"""Commands that only root of the image can run, and that change nothing that is tried here."""


def main() -> int:
    """Reproduce the image, and return an exit code."""
    arguments, (build, final) = read_dockerfile(ROOT / "Dockerfile")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="image-") as name:
        root = Path(name)
        root.chmod(0o755)
        paths = _paths(build, final)
        for path in paths:
            (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        work = root / build.texts("WORKDIR")[0].lstrip("/")
        _copy(build, work)
        home = root / "home"
        home.mkdir()
        _give_away(root)
        python_folder = _python_folder(root)
        environment = {
            **_libraries(root),
            **{each: os.environ[each] for each in os.environ if each.startswith(("PIP_", "SSL_", "REQUESTS_", "LANG"))},
            **arguments,
            "PATH": f"{python_folder}:/usr/bin:/bin",
            "HOME": str(home),
        }
        for stage in (build, final):
            _look_up(apt_packages(stage))
        for text in build.texts("RUN"):
            _run(["sh", "-euc", _moved(text, root, paths)], environment, work)
            print(f"{time.monotonic() - start:6.1f} s  {text[:90]}", flush=True)
        _try(final, root, paths, environment)
    print(f"{time.monotonic() - start:6.1f} s  as user {NOBODY if os.getuid() == 0 else os.getuid()}")
    return 0


def _paths(build: Stage, final: Stage) -> list[str]:
    """Return the absolute paths that the build writes to."""
    text = " ".join([*build.texts("RUN"), *build.texts("WORKDIR"), *final.texts("COPY")])
    found = set(re.findall(r"(?<![\w:.$}/-])/(?:src|wheels|build|opt/coverslip)\b", text))
    return sorted(found, key=len, reverse=True)


def _moved(text: str, root: Path, paths: Sequence[str]) -> str:
    """Return a text with these paths below a folder."""
    pattern = "|".join(map(re.escape, paths))
    return re.sub(rf"(?<![\w.$}}/-])({pattern})(?![\w-])", lambda found: f"{root}{found[1]}", text)


def _copy(build: Stage, work: Path) -> None:
    """Copy what the stage copies from the context."""
    work.mkdir(parents=True, exist_ok=True)
    for text in build.texts("COPY"):
        *sources, _ = text.split()
        for source in sources:
            path = ROOT / source
            if path.is_dir():
                shutil.copytree(path, work / source, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(path, work)


def _python_folder(root: Path) -> Path:
    """Return a folder with ``python`` and ``pip`` of an environment that has nothing else, as a base image has."""
    prefix = Path(sys.base_prefix)
    if os.getuid() == 0 and any(not folder.stat().st_mode & 0o001 for folder in (prefix, *prefix.parents)):
        shutil.copytree(prefix, root / "python", symlinks=True, ignore=shutil.ignore_patterns("site-packages", "test"))
        prefix = root / "python"
    python = prefix / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    _run([str(python), "-m", "venv", str(root / "base")], _libraries(root), root)
    return root / "base" / "bin"


def _libraries(root: Path) -> dict[str, str]:
    """Return what an interpreter needs that was copied."""
    return {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": str(root / "python" / "lib")}


def _give_away(folder: Path) -> None:
    if os.getuid() == 0:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY)


def _run(command: Sequence[str], environment: Mapping[str, str], work: Path) -> str:
    """Run a command as a user without rights, and return what it tells."""
    if os.getuid() == 0:
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", "--"]
        command = [*drop, *command]
    done = subprocess.run(command, env=dict(environment), cwd=work, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:300]}\nended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def _look_up(packages: Sequence[str]) -> None:
    if packages and shutil.which("apt-cache"):
        done = subprocess.run(["apt-cache", "show", *packages], capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"apt knows not all of {', '.join(packages)}: {done.stderr}")


def _try(final: Stage, root: Path, paths: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run the entry point as the last stage sets it up, with its own command and on a slide."""
    for text in final.texts("RUN"):
        assert text.split()[0] in OF_THE_DISTRIBUTION, f"cannot be reproduced: RUN {text}"
    (entry,), (command,) = final.texts("ENTRYPOINT"), final.texts("CMD")
    own = dict(word.split("=", 1) for text in final.texts("ENV") for word in text.split())
    own["PATH"] = _moved(own["PATH"], root, paths).replace("$PATH", "/usr/bin:/bin")
    environment = {**_libraries(root), "HOME": environment["HOME"], **own}
    program = shutil.which(_words(entry)[0], path=own["PATH"])
    assert program is not None, f"ENTRYPOINT {entry}: is not on the PATH"
    folder = Path(program).parent
    assert [name for name in COMPILERS if (folder / name).exists()] == []
    assert not (folder / "pip").exists()
    data = root / "home" / "data"
    _run(["mkdir", "-p", str(data)], environment, root)
    assert "Usage: coverslip" in _run([program, *_words(command)], environment, data)
    slide = data / "slide.svs"
    _write_slide(slide)
    _give_away(data)
    _run([program, "run", str(data), "--work", str(data / "work"), "--to", str(data / "store"), "--catalog",
          str(data / "catalog.duckdb")], environment, data)  # fmt: skip
    assert list((data / "store").rglob("*.dcm"))
    for words in (["worker", "--help"], ["formats"]):
        _run([program, *words], environment, data)
    installed = Path(program).parents[1]
    assert list(installed.rglob("coverslip/__pycache__/*.pyc")), "nothing is compiled, so each start takes longer"
    size = sum(path.stat().st_size for path in installed.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"         {size / 1e6:.0f} MB besides the base image")


def _words(text: str) -> list[str]:
    from tools.dockerfile import Instruction

    return Instruction("", text).words()


def _write_slide(path: Path) -> None:
    from tests.factories.aperio import write_aperio_svs

    write_aperio_svs(path)


if __name__ == "__main__":
    sys.exit(main())
