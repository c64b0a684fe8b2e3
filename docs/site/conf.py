"""The documents as a site: `make site`, strict; Sphinx with MyST. Pages are the Markdown files above this folder."""

import contextlib
import dataclasses
import inspect
import io
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

project = "edgedistill"
author = "The edgedistill authors"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "edgedistill"
exclude_patterns = ["site"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
# Links from pages to source files and to README lead to the repository, not to pages of the site.
suppress_warnings = ["myst.xref_missing"]
nitpicky = False


def changed_fields(config: Any, prefix: str = "") -> Iterator[str]:
    """The fields of a configuration that have no default or another value, as on the command line."""
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), prefix + field.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from changed_fields(value, f"{name}.")
        elif value == field.default:
            continue
        elif isinstance(value, bool):
            head, dot, last = name.rpartition(".")
            yield f"--{name}" if value else f"--{head}{dot}no-{last}"
        else:
            values = value if isinstance(value, tuple) else [value]
            yield " ".join([f"--{name}", *(shlex.quote(str(one)) for one in values)])


class CommandHelp(Directive):
    """What a command prints for `--help`: `.. command-help:: predict`."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """The text as a literal block."""
        from distill import cli

        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            cli.main([*self.arguments[0].split(), "--help"])
        if not printed.getvalue().strip():
            raise self.error(f"{self.arguments[0]} prints no help")
        return [nodes.literal_block(text=printed.getvalue())]


class Lines(Directive):
    """What a command prints: `.. printed:: presets`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The text as a literal block."""
        from distill import cli

        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            cli.main([self.arguments[0]])
        return [nodes.literal_block(text=printed.getvalue())]


class Presets(Directive):
    """Each preset with its purpose, and the fields in which it differs from the defaults: `.. presets::`."""

    def run(self) -> list[nodes.Node]:
        """A section for each preset."""
        from distill.tasks.registry import PRESETS

        return [self._section(name, make) for name, make in PRESETS.items()]

    def _section(self, name: str, make: Callable[[], Any]) -> nodes.Node:
        section = nodes.section(ids=[f"preset-{name}"], names=[name])
        section += nodes.title(text=name)
        section += nodes.paragraph(text=inspect.getdoc(make) or "")
        section += nodes.literal_block(text="\n".join(changed_fields(make())))
        return section


class Notebook(Directive):
    """The cells of a notebook, without outputs: ```{notebook} examples/folder_to_engine.ipynb."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Text as Markdown, code as blocks."""
        text = (ROOT / self.arguments[0]).read_text(encoding="utf-8")
        holder = nodes.container()
        for cell in json.loads(text)["cells"]:
            source = "".join(cell["source"])
            if cell["cell_type"] == "code":
                holder += nodes.literal_block(source, source, language="python")
                continue
            first, *rest = source.splitlines()
            if first.startswith("#"):  # no sections inside a directive
                holder += nodes.rubric(text=first.lstrip("# "))
            self.state.nested_parse(StringList(rest if first.startswith("#") else [first, *rest]), 0, holder)
        return holder.children


def setup(app) -> None:  # noqa: ANN001 - Sphinx's application
    """Called by Sphinx."""
    app.add_directive("command-help", CommandHelp)
    app.add_directive("notebook", Notebook)
    app.add_directive("presets", Presets)
    app.add_directive("printed", Lines)
