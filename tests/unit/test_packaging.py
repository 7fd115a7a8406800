"""What is installed: the package, the twistd plugin, and nothing that belongs to Twisted."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins

import txqmp
from support.programs import missing
from support.wheel import FORBIDDEN, PLUGIN, REQUIRED, problems


ROOT = Path(__file__).resolve().parents[2]

#: What building the package needs from the checkout.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "txqmp", "twisted")

TAPNAME = "qmp-monitor"


@pytest.fixture
def distribution() -> importlib.metadata.Distribution:
    """The installed distribution, if it is one that copies of the files were made for."""
    try:
        found = importlib.metadata.distribution("txqmp")
    except importlib.metadata.PackageNotFoundError:
        missing("txqmp is not installed")
    origin = json.loads(found.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        missing("txqmp is installed as editable")
    return found


def test_installed_files(distribution: importlib.metadata.Distribution) -> None:
    assert distribution.files is not None
    # Pip makes the program when it installs the package.
    installed = [path for path in distribution.files if path.parts[-2:] != ("bin", "qmp-monitor")]
    assert len(installed) == len(distribution.files) - 1
    assert problems(map(str, installed)) == []


def test_installed_package_is_the_one_tested(
    distribution: importlib.metadata.Distribution,
) -> None:
    assert txqmp.__file__ is not None
    installed = Path(str(distribution.locate_file("txqmp/__init__.py"))).resolve()
    assert Path(txqmp.__file__).resolve() == installed


def test_checkout_does_not_touch_twisted() -> None:
    for name in FORBIDDEN:
        assert not (ROOT / name).exists()


def test_plugin_is_listed() -> None:
    assert TAPNAME in [plugin.tapname for plugin in getPlugins(IServiceMaker)]


@pytest.mark.parametrize(
    ("names", "wrong"),
    [
        ([], []),
        (["txqmp/frames/codec.py", "txqmp-0.1.0.dist-info/RECORD"], []),
        (["twisted/plugins/__pycache__/txqmp_plugins.cpython-311.pyc"], []),
        (["twisted/__init__.py"], ["twisted/__init__.py would overwrite Twisted's own"]),
        (
            ["twisted/plugins/__init__.py"],
            ["twisted/plugins/__init__.py would overwrite Twisted's own"],
        ),
        (
            ["twisted/plugins/dropin.cache"],
            ["twisted/plugins/dropin.cache is Twisted's cache of somebody's plugins"],
        ),
        (["twisted/web.py"], ["twisted/web.py does not belong in Twisted's package"]),
        (["tests/conftest.py"], ["tests/conftest.py is outside the package"]),
    ],
)
def test_problems(names: list[str], wrong: list[str]) -> None:
    assert problems([*REQUIRED, *names]) == wrong


@pytest.mark.parametrize("name", REQUIRED)
def test_problem_missing(name: str) -> None:
    assert problems(set(REQUIRED) - {name}) == [f"{name} is missing"]


# From here on the package is built and installed. None of it needs a network: the new environments
# borrow the dependencies of this one.


class Environment:
    """A virtual environment with this one's packages, but without txqmp."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        run(sys.executable, "-m", "venv", "--without-pip", str(directory))
        self._python = directory / "bin" / "python"
        self._pip = [sys.executable, "-m", "pip", "--python", str(self._python)]
        self._packages = Path(
            sysconfig.get_path("purelib", "posix_prefix", vars={"base": str(directory)}),
        )
        for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
            for entry in Path(place).iterdir():
                self._borrow(entry)

    def _borrow(self, entry: Path) -> None:
        target = self._packages / entry.name
        if "txqmp" in entry.name or target.exists():
            return
        if entry.name != "twisted":
            target.symlink_to(entry)
            return
        # Our plugin is installed into Twisted's own directory: copy that, without what is there.
        unwanted = shutil.ignore_patterns("test", "__pycache__", "dropin.cache", "txqmp_plugins.py")
        shutil.copytree(entry, target, ignore=unwanted)

    def install(self, *args: str) -> None:
        """Install with this environment's pip."""
        options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        run(*self._pip, "install", *options, *args)

    def uninstall(self) -> None:
        run(*self._pip, "uninstall", "--quiet", "--yes", "txqmp")

    def run(self, code: str, *args: str) -> str:
        """Run Python code, with arguments, away from the checkout; return what it prints."""
        return run(str(self._python), "-c", code, *args, cwd=self._directory)

    def script(self, name: str, *args: str) -> str:
        """Run a program that was installed; return what it prints."""
        return run(str(self._directory / "bin" / name), *args, cwd=self._directory)

    def listings(self) -> dict[str, bool]:
        """Return whether twistd and twist list the plugin."""
        twistd = "from twisted.scripts.twistd import run; run()"
        twist = "from twisted.application.twist._twist import Twist; Twist.main()"
        return {
            "twistd": TAPNAME in self.run(twistd, "--help"),
            "twist": TAPNAME in self.run(twist, "--help"),
        }


def run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the package is built from."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    # As it is after twistd has run from an editable install.
    (copy / "twisted" / "plugins" / "dropin.cache").touch()
    return copy


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


def build(checkout: Path, directory: Path) -> Path:
    """Build the wheel of a checkout and return its path."""
    code = "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])"
    run(sys.executable, "-c", code, str(directory), cwd=checkout)
    (wheel,) = directory.glob("*.whl")
    return wheel


@pytest.mark.packaging
def test_wheel_holds_the_plugin_and_not_twisted(checkout: Path, tmp_path: Path) -> None:
    wheel = build(checkout, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        assert problems(archive.namelist()) == []


@pytest.mark.packaging
def test_wheel_install(checkout: Path, tmp_path: Path, environment: Environment) -> None:
    assert environment.listings() == {"twistd": False, "twist": False}
    environment.install(str(build(checkout, tmp_path)))
    assert environment.listings() == {"twistd": True, "twist": True}
    assert environment.script(TAPNAME, "--version").startswith("txqmp ")
    assert environment.script(TAPNAME, "status", "--help").startswith("usage: qmp-monitor status")
    environment.uninstall()
    assert environment.listings() == {"twistd": False, "twist": False}


@pytest.mark.packaging
def test_editable_install(checkout: Path, environment: Environment) -> None:
    environment.install("--editable", str(checkout))
    assert environment.listings() == {"twistd": True, "twist": True}
    assert environment.script(TAPNAME, "--version").startswith("txqmp ")
    where = environment.run("import txqmp; print(txqmp.__file__)").strip()
    assert Path(where) == checkout / "txqmp" / "__init__.py"
    assert (checkout / PLUGIN).exists()
