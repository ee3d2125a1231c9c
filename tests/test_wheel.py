"""The built wheel, alone in a fresh environment outside the checkout, carries all that it needs."""

import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*words, cwd):
    done = subprocess.run([str(w) for w in words], cwd=cwd, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that the checkout stays as it is."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", cwd=folder)
    (path,) = (folder / "dist").glob("*.whl")
    return path


def test_the_wheel_holds_every_file_of_the_package(wheel):
    source = ROOT / "src"
    files = {p.relative_to(source).as_posix() for p in (source / "tastemaker").rglob("*") if p.is_file()}
    wanted = {f for f in files if "__pycache__" not in f and not Path(f).name.startswith(".")}
    inside = set(zipfile.ZipFile(wheel).namelist())
    assert wanted - inside == set()
    assert any(name.endswith("licenses/LICENSE") for name in inside)


def test_it_runs_alone_outside_the_checkout(wheel, tmp_path):
    """Its dependencies are lent to it from this environment by a path file; the package itself is not."""
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel, cwd=tmp_path)
    own = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).strip())
    (own / "lent.pth").write_text("\n".join(site.getsitepackages()))
    said = run(python, "-c", "import tastemaker; print(tastemaker.__file__, *tastemaker.__all__)", cwd=tmp_path)
    assert said.startswith(str(own)) and "Generator" in said
    assert "Usage: tastemaker" in run(tmp_path / "env" / "bin" / "tastemaker", "--help", cwd=tmp_path)
