"""The documents as a site: `make site`, strict; Sphinx with MyST. Pages are the Markdown files above this folder."""

import contextlib
import io
import sys
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

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


def setup(app) -> None:  # noqa: ANN001 - Sphinx's application
    """Called by Sphinx."""
    app.add_directive("command-help", CommandHelp)
    app.add_directive("printed", Lines)
