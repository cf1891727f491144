"""Names of `plait.gwas`, which are imported when they are first used."""

import ast
from pathlib import Path

import pytest

from plait import gwas


def test_every_name_is_found_and_seen():
    assert set(gwas.__all__) <= set(dir(gwas))
    for name in gwas.__all__:
        assert getattr(gwas, name).__name__ == name
    with pytest.raises(AttributeError, match=r"'plait\.gwas' has no attribute 'scam'"):
        _ = gwas.scam


def test_type_checkers_see_the_same_names_in_the_same_modules():
    tree = ast.parse(Path(gwas.__file__).read_text(encoding="utf-8"))
    seen = {
        node.module.removeprefix("plait.gwas."): {alias.name for alias in node.names}
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("plait.gwas.")
    }
    assert seen == {module: set(names.split()) for module, names in gwas._MODULES.items()}
    assert sorted(name for names in seen.values() for name in names) == sorted(gwas.__all__)


def test_no_module_has_the_name_of_something_public():
    """Importing it would put the module in the place of the thing."""
    modules = {path.stem for path in Path(gwas.__file__).parent.glob("*.py")}
    assert not modules & set(gwas.__all__)
