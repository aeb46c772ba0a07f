"""Sphinx's configuration: the site of the documentation."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from phonopy_equivariant import __version__

project = "phonopy_equivariant"
author = "The phonopy_equivariant developers"
project_copyright = f"2026, {author}"
version = release = __version__

# words of the command line keep their hyphens
smartquotes = False
highlight_language = "text"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "commands",
]
exclude_patterns = ["_build", "_ext"]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3
# notebooks are run while the site is built; an error ends it
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

# types stand in the signatures; parameters are described below them
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
napoleon_google_docstring = False
napoleon_use_rtype = False
add_module_names = False

# A reference to a function, module or attribute that is not on the site is an error. Types in
# signatures are not: they may be of other packages, whose inventories would have to be fetched, or
# parts of results.
nitpicky = True
nitpick_ignore_regex = [(r"py:class", r".*")]

html_theme = "furo"
html_title = "phonopy_equivariant"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
