"""How the pages are built.

.venv/bin/sphinx-build -q -W --keep-going -b html docs docs/_build/html
"""

from sphinx.pycode import ModuleAnalyzer

from sitq import __version__

project = "sitq"
author = "The sitq maintainers"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# Docstrings write `names` between single backticks.
default_role = "code"
# reference/sitq.worker.md has the headings that others link to, and they skip a level.
suppress_warnings = ["myst.header"]

html_theme = "furo"
html_title = f"sitq {version}"
html_show_sourcelink = False
html_show_copyright = False

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

_attributes = {}


def before_napoleon(_app, what, name, _obj, _options, lines):
    """Give lists the empty line above that reST wants, and put attributes aside."""
    for i in range(len(lines) - 1, 0, -1):
        above = lines[i - 1]
        if lines[i].startswith("- ") and above and not above.startswith(("- ", " ")):
            lines.insert(i, "")
    if what == "attribute":
        _attributes[name] = list(lines)


def after_napoleon(_app, what, name, _obj, _options, lines):
    """Undo what napoleon does to attributes: it takes the words before a colon for a type."""
    if what == "attribute":
        lines[:] = _attributes.pop(name)


def forget_overloads(module):
    """Show a method once, as the page writes it, and not once for each of its overloads."""
    analyzer = ModuleAnalyzer.for_module(module)
    analyzer.analyze()
    analyzer.overloads.clear()


def setup(app):
    for module in ("sitq.queue", "sitq.sync", "sitq.task"):
        forget_overloads(module)
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
