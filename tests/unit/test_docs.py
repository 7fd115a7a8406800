"""The documentation fits the code: names, facts, files and commands that it speaks of are there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import txqmp
import txqmp.testing
from txqmp.frames import (
    Action,
    ClientReactor,
    Response,
    RunCommand,
    ServerReactor,
    format_frame,
    parse_frame,
)


ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")

PAGES = {path: path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.rst"))}
REFERENCE = "\n".join(text for path, text in PAGES.items() if path.parent.name == "api")


def blocks(language: str, page: str = README) -> list[str]:
    """The fenced blocks of a Markdown page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


# README


def test_readme_has_the_two_commands() -> None:
    main, tests = blocks("sh")
    for command in (main, tests):
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install --quiet ")
        assert command.count("\n") == 1
    assert main.endswith(" qmp-monitor --demo\n")
    assert tests.endswith(" .venv/bin/pytest\n")


def test_readme_has_the_command_that_ci_runs() -> None:
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("this is no checkout")
    (pattern,) = re.findall(r"grep -E '([^']+)' README.md", script.read_text(encoding="utf-8"))
    assert re.findall(f"{pattern}.*", README, re.MULTILINE) == [blocks("sh")[1].strip()]


def test_readme_has_one_example_of_ten_lines() -> None:
    (example,) = blocks("python")
    code = [line for line in example.splitlines() if line.strip() and "import" not in line]
    assert len(code) <= 10


def test_readme_links() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_readme_files() -> None:
    names = re.findall(r"`((?:txqmp|tests)/[\w./]+)`", README)
    assert names
    assert [name for name in names if not (ROOT / name).exists()] == []


def test_readme_errors() -> None:
    """Each exception that has to do with commands or connecting is in README's table."""
    table = README[README.index("## Errors") : README.index("## Compared")]
    for name in set(re.findall(r"`(\w+Error)`", table)):
        assert issubclass(getattr(txqmp, name), txqmp.QMPError)


# Pages


@pytest.mark.parametrize("module", [txqmp, txqmp.testing], ids=lambda module: module.__name__)
def test_reference_has_all_public_names(module: object) -> None:
    """Each name is documented by itself, or with the members of the module that it is from."""
    named: set[str] = set()
    whole: set[str] = set()
    for kind, target, options in re.findall(
        r"^\.\. auto(\w+):: (\S+)\n((?:   .*\n)*)", REFERENCE, re.MULTILINE
    ):
        members = re.search(r":members:(.*(?:\n    .*)*)", options)
        if kind != "module":
            named.add(target.rpartition(".")[2])
        elif members and members[1].strip():
            named.update(re.split(r"[,\s]+", members[1].strip()))
        elif members:
            whole.add(target)
    for name in module.__all__:  # type: ignore[attr-defined]
        home = str(getattr(getattr(module, name), "__module__", ""))
        homes = {home} if home.startswith("txqmp.") else {"txqmp.testing.steps"}  # of data
        assert name in named or homes & whole, f"{name} is not in docs/api"


def test_facts_that_are_cited_are_told() -> None:
    told = set(re.findall(r"^\.\. _fact-g(\d+):$", PAGES[DOCS / "facts.rst"], re.MULTILINE))
    cited: dict[str, str] = {}
    for folder in ("txqmp", "twisted", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for group in re.findall(r"\bfacts?\s+((?:G\d+(?:,| and| or)?\s*)+)", text):
                cited.update(dict.fromkeys(re.findall(r"\d+", group), path.name))
    assert cited
    assert {number: name for number, name in cited.items() if number not in told} == {}


def floors() -> dict[str, int]:
    """The floor of each module and folder, as the overview draws the house."""
    house = PAGES[DOCS / "overview.rst"].partition("The house")[2]
    found: dict[str, int] = {}
    floor = 0
    for number, names in re.findall(r"^   \* - ?(\d?)\n     - (.*)$", house, re.MULTILINE):
        floor = int(number or floor)
        found.update(dict.fromkeys(re.findall(r"``(\w+)``", names), floor))
    return found


def test_house_has_all_modules() -> None:
    modules = {path.stem for path in (ROOT / "txqmp").glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in (ROOT / "txqmp").glob("*/__init__.py")}
    assert set(floors()) == modules | folders


def test_house_stands() -> None:
    """What is imported is from the same floor or from below; type checkers may look up."""
    floor = floors()
    wrong = []
    for path in (ROOT / "txqmp").rglob("*.py"):
        own = path.relative_to(ROOT / "txqmp").parts[0].removesuffix(".py")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
            if ast.unparse(block.test) == "TYPE_CHECKING":
                block.body = [ast.Pass()]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("txqmp."):
                other = str(node.module).split(".")[1]
                if own != "__init__" and floor[other] > floor[own]:
                    wrong.append(f"{path.name} imports {node.module}")
    assert wrong == []


def test_examples_are_shown() -> None:
    """No example is left over, and none is missing."""
    shown = {
        name
        for text in PAGES.values()
        for name in re.findall(r"literalinclude:: examples/(\S+)", text)
    }
    there = {path.name for path in (DOCS / "examples").iterdir() if path.is_file()}
    assert shown == there


def test_changelog_has_this_version() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    assert f"\n{version}\n---" in PAGES[DOCS / "changelog.rst"]


FRAMES = (DOCS / "frames.md").read_text(encoding="utf-8")


def test_the_example_of_frames_runs() -> None:
    (example,) = blocks("python", FRAMES)
    ran = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, check=True, text=True
    )
    came = Response(1, b'{"status": "running"}')
    assert ran.stdout == f"{[came]}\n"
    assert f"# {ran.stdout}" in example


def test_the_frames_in_hex_are_those_that_are_told() -> None:
    (text,) = blocks("text", FRAMES)
    pairs = [pair.split("\n") for pair in text.strip().split("\n\n")]
    frames = [parse_frame(told) for told, _ in pairs]
    assert [[format_frame(frame), frame.encode().hex()] for frame in frames] == pairs
    client = ClientReactor(encodings=["zlib"])
    server = ServerReactor(link=True, encodings=["zlib"])
    assert b"".join(client.open_link()) == frames[0].encode()
    arguments = {b"line": b'{"execute":"query-status"}', b"vm": b"vm1"}
    actions: list[Action] = []
    for frame in frames:
        if frame.request_id == 3 and not client.active:
            _, request = client.request("execute", arguments)
            assert b"".join(request) == b"".join(f.encode() for f in frames[2:5])
        actions += (server if frame.stream_id & 1 else client).receive_frame(frame)
    assert RunCommand(3, b"execute", arguments, None) in actions
    assert actions[-1] == Response(3, b'{"return":{"status":"running"}}')
