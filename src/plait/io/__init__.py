"""Files in, files out: matrices of numbers, stores, and the results that are saved in them."""

from plait.io.atomic import check_writable, replace_file, replace_folder
from plait.io.effects_store import read_effects, write_effects
from plait.io.genotypes import SelectedGenotypes, convert_genotypes, open_genotypes
from plait.io.matrices import (
    LabelledMatrix,
    read_covariances,
    read_effect_tables,
    read_matrix,
    read_square,
)
from plait.io.result import Result, freeze
from plait.io.store import (
    check_store_writable,
    read_dataset,
    write_dataset,
)

__all__ = [
    "LabelledMatrix",
    "Result",
    "SelectedGenotypes",
    "check_store_writable",
    "check_writable",
    "convert_genotypes",
    "freeze",
    "open_genotypes",
    "read_covariances",
    "read_dataset",
    "read_effect_tables",
    "read_effects",
    "read_matrix",
    "read_square",
    "replace_file",
    "replace_folder",
    "write_dataset",
    "write_effects",
]
