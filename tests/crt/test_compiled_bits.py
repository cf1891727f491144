"""A process that compiles the kernels finds the same bits as one that has them from the cache.

Numba links the caller with a copy of the called function, and a process that compiled both may run
the one or the other. Where sums may be made in any order, two copies may differ: functions that are
called from kernels are therefore part of their callers (``forceinline``).
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import plait

START = """
import hashlib, warnings
import numpy as np
from plait import crt, simulate
from tests.crt.screens import reference_screen

warnings.simplefilter("ignore")
digest = hashlib.blake2b()
inputs = crt.prepare_crt_inputs(reference_screen("synth_b")[0])
counts = simulate.make_count_screen(N=600, n_genes=20, n_targets=4, moi="low", seed=1)
targets = {g: t.replace("NTC", "non-targeting") for g, t in counts.uns["guide2gene"].items()}
screen = crt.GeneScreen(crt.gene_screen_data(
    counts.X, counts.obsm["guide_umis"],
    {"grna_id": list(targets), "grna_target": list(targets.values())}, "low",
    response_names=counts.var_names, guide_names=counts.uns["guide_names"],
))
"""
EFFECTS = """
digest.update(crt.perturbation_effects(inputs).log10p.tobytes())
screen.set_parameters(discovery_pairs=crt.trans_pairs(screen.data), mechanism="crt")
found = screen.run_discovery()
for values in (found.log10_p, found.z_orig, found.theta):
    digest.update(np.ascontiguousarray(values).tobytes())
"""
OTHERS = """
for options in ({"statistic": "utest", "side": "left"}, {"sampler": "stratified"}):
    digest.update(crt.perturbation_effects(inputs, **options).log10p.tobytes())
for mechanism in ("permutations", "crt"):
    screen.set_parameters(discovery_pairs=crt.trans_pairs(screen.data), mechanism=mechanism)
    found = screen.run_discovery()
    for values in (found.log10_p, found.z_orig, found.theta):
        digest.update(np.ascontiguousarray(values).tobytes())
    can = screen.detectable_effects(p_threshold=0.01)
    for values in (can.log_2_decrease, can.log_2_increase, can.power_at):
        digest.update(np.ascontiguousarray(values).tobytes())
"""
END = """
print(digest.hexdigest())
"""


@pytest.mark.parametrize(
    "part", [EFFECTS, pytest.param(OTHERS, marks=pytest.mark.slow)], ids=["effects", "others"]
)
def test_compiling_changes_no_bit(part, tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    line = [sys.executable, "-c", START + part + END]
    root = Path(__file__).parents[2]
    first, second = (
        subprocess.run(
            line, env=environment, cwd=root, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    )
    assert first == second != ""


def test_functions_called_from_kernels_are_inlined_where_order_is_free():
    folder = Path(plait.__file__).parent
    sources = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
    free = [path for path, text in sources.items() if "fastmath=" in text]
    assert free
    for path in free:
        functions = {
            node.name: ast.unparse(node.decorator_list[0])
            for node in ast.parse(sources[path]).body
            if isinstance(node, ast.FunctionDef) and node.decorator_list
        }
        called = set(re.findall(r"(?<!def )\b(\w+)\(", sources[path])) & set(functions)
        for name in called:
            if "fastmath=" in functions[name]:
                assert "forceinline=True" in functions[name], f"{path.name}: {name}"
