"""Sphinx configuration: ``sphinx-build -n -W --keep-going -b html docs docs/_build/html``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import attrs
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.inspect import stringify_signature


_PYPROJECT = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")

project = "txqmp"
author = "the txqmp maintainers"
copyright = author
release = version = re.findall(r'^version = "(.+)"$', _PYPROJECT, re.MULTILINE)[0]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]
nitpicky = True
# The build needs no network, so what belongs to others is not linked.
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|datetime|ipaddress|os|pathlib|pika|ssl|treq|twisted|zope)\..*"),
    (r"py:class", r"Any|Callable|Coroutine|Hashable|Iterable|Iterator|Literal|Mapping|Sequence"),
    (r"py:class", r"Clock|Deferred|Factory|Failure|I[A-Z]\w+|Logger|LogLevel|datetime|deque"),
    (r"py:class", r"_[A-Z]\w*"),  # type variables
    (r"py:class", r"ConnectionParameters|EncodedURL|HTTPClient|HTTPConnectionPool"),
    (r"py:class", r"Place"),
    (r"py:class", r"Where"),
]

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90

html_theme = "alabaster"
html_theme_options = {"description": "QMP for Twisted", "page_width": "62rem"}
html_show_copyright = False


class _Default:
    """A default value that is too long to show."""

    def __repr__(self) -> str:
        return "..."


def sign(
    app: Sphinx, what: str, name: str, it: Any, options: Any, signature: str, returns: str
) -> tuple[str, str | None] | None:
    """Show annotations as they stand in the source, by their short names."""
    if not signature:
        return None
    written = inspect.signature(it)
    parameters = [each for each in written.parameters.values() if each.name != "self"]
    if what in ("class", "exception"):
        written = written.replace(return_annotation=inspect.Signature.empty)
        parameters = [_with_default(it, each) for each in parameters if not _private(it, each)]
    text = stringify_signature(written.replace(parameters=parameters))
    shown, arrow, result = text.partition(" -> ")
    return shown, result if arrow else None


def _private(it: type, parameter: inspect.Parameter) -> bool:
    return attrs.has(it) and f"_{parameter.name}" in attrs.fields_dict(it)


def _with_default(it: type, parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter of a class; attrs knows the defaults of its own."""
    if not attrs.has(it) or parameter.default is parameter.empty:
        return parameter
    default = attrs.fields_dict(it)[parameter.name].default
    plain = isinstance(default, bool | int | float | str | tuple | None)
    return parameter.replace(default=default if plain else _Default())


def resolve(
    app: Sphinx, env: BuildEnvironment, node: Any, contnode: nodes.Element
) -> nodes.Element | None:
    """
    Find what Sphinx does not: ``txqmp.protocol.RunState`` is documented as ``txqmp.RunState``,
    an attribute that a docstring lists as ``:ivar name:`` with its class, and a type may be data.
    """
    if node.get("refdomain") != "py":
        return None
    python = env.get_domain("py")
    target = re.sub(r"^txqmp\.(?:[a-z_]+\.)*(?=\w)", "", node["reftarget"])
    if node["reftype"] == "attr":
        target = target.rpartition(".")[0] or node.get("py:class", "")
    found = [
        name
        for name, entry in python.find_obj(env, None, None, target, "obj", searchmode=1)
        if name.startswith("txqmp.") and not entry.aliased
    ]
    if len(found) != 1:
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, contnode)


def cite(app: Sphinx, what: str, name: str, it: Any, options: Any, lines: list[str]) -> None:
    """Link the facts that a docstring cites by number."""
    lines[:] = [re.sub(r"\bG(\d+)\b", r":ref:`G\1 <fact-g\1>`", line) for line in lines]


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", cite)
    app.connect("autodoc-process-signature", sign)
    app.connect("missing-reference", resolve)
