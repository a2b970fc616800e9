"""The wheel as somebody gets it who has no checkout: built from the tree and from the sdist, installed, run."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

import hfpeer

pytest.importorskip("hatchling", reason="the build backend is part of the test extra")

PACKAGES = {"hfpeer", "hfpeer_cli", "hfpeer_daemon"}
DIST_INFO = f"hfpeer-{hfpeer.__version__}.dist-info"
DATA = f"hfpeer-{hfpeer.__version__}.data/data"


def run(*words: str | Path, cwd: Path, environ: dict[str, str]) -> str:
    done = subprocess.run([*map(str, words)], cwd=cwd, env=environ, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(source: Path, target: Path, kind: str, environ: dict[str, str]) -> Path:
    """Builds a `wheel` or `sdist` of `source` with the backend that is installed here, asking no index."""
    run(sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", target, cwd=source, environ=environ)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory, plain_environ: dict[str, str]) -> Path:
    """The wheel of this checkout."""
    return build(root, tmp_path_factory.mktemp("wheel"), "wheel", plain_environ)


@pytest.fixture(scope="module")
def sdist(root: Path, tmp_path_factory: pytest.TempPathFactory, plain_environ: dict[str, str]) -> Path:
    """The sdist of this checkout, unpacked."""
    packed = build(root, tmp_path_factory.mktemp("sdist"), "sdist", plain_environ)
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(folder)
    return folder / packed.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory, plain_environ: dict[str, str]) -> Path:
    """An environment with the wheel, and nothing of this checkout; it borrows the libraries of this environment."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel),
        cwd=folder,
        environ=plain_environ,
    )
    # A plain path: the .pth files behind it, and with them the editable install of this checkout, are not followed.
    (site_packages(folder) / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def site_packages(environment: Path) -> Path:
    (folder,) = environment.glob("lib/python*/site-packages")
    return folder


def names_in(wheel: Path) -> list[str]:
    with ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_a_wheel_puts_only_hfpeer_into_site_packages(installed: Path) -> None:
    assert {path.name for path in site_packages(installed).iterdir()} == {*PACKAGES, DIST_INFO, "borrowed.pth"}


def test_a_wheel_has_every_module(wheel: Path, module_names: list[str]) -> None:
    files = [name.removesuffix(".py").removesuffix("/__init__") for name in names_in(wheel) if name.endswith(".py")]
    assert sorted(file.replace("/", ".") for file in files) == module_names


def test_a_wheel_says_that_it_is_typed_and_brings_licence_and_units(wheel: Path) -> None:
    wanted = {f"{package}/py.typed" for package in PACKAGES} | {f"{DIST_INFO}/licenses/LICENSE"}
    wanted |= {f"{DATA}/share/hfpeer/systemd/{scope}/hfpeerd.service" for scope in ("system", "user")}
    assert wanted <= set(names_in(wheel))


def test_an_sdist_makes_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path, plain_environ: dict[str, str]) -> None:
    again = build(sdist, tmp_path, "wheel", plain_environ)
    assert names_in(again) == names_in(wheel)
    with ZipFile(wheel) as first, ZipFile(again) as second:
        different = [name for name in first.namelist() if first.read(name) != second.read(name)]
    assert different == []


def test_an_sdist_can_be_tested(sdist: Path) -> None:
    for name in (
        "README.md",
        "README.zh-CN.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "justfile",
        "LICENSE",
        ".ci/run",
        "tests",
    ):
        assert (sdist / name).exists(), name


@pytest.mark.parametrize("script", ["hfpeer", "hfpeerd"])
def test_an_installed_script_runs(installed: Path, tmp_path: Path, plain_environ: dict[str, str], script: str) -> None:
    assert f"usage: {script}" in run(installed / "bin" / script, "--help", cwd=tmp_path, environ=plain_environ).lower()


def test_an_installed_hfpeer_is_the_wheels_and_says_its_version(
    installed: Path, tmp_path: Path, plain_environ: dict[str, str]
) -> None:
    said = run(installed / "bin" / "hfpeer", "--version", cwd=tmp_path, environ=plain_environ)
    assert said == f"hfpeer, version {hfpeer.__version__}\n"
    code = "import hfpeer, hfpeer_cli, hfpeer_daemon as d; print(hfpeer.__file__, hfpeer_cli.__file__, d.__file__)"
    files = run(installed / "bin" / "python", "-c", code, cwd=tmp_path, environ=plain_environ).split()
    assert {Path(file).parents[1] for file in files} == {site_packages(installed)}
