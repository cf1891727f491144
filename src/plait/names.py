"""The names of dimensions, each with one meaning, used in every shape, table and store."""

from collections.abc import Mapping
from types import MappingProxyType

DIMENSIONS: Mapping[str, str] = MappingProxyType(
    {
        "samples": "individuals, lines or pseudobulk donors that were measured",
        "variants": "genetic variants (markers, SNPs)",
        "traits": "phenotypes measured on samples",
        "contexts": "where an effect acts: tissues, traits, cell types, environments, programs",
        "effects": "what acts: a variant on a gene, a marker, a gene or a perturbation",
        "components": "components of a mixture distribution",
        "covariates": "known variables that are adjusted for",
        "cells": "single cells",
        "programs": "gene programs (factors of expression)",
        "genes": "genes",
        "guides": "guide RNAs of a perturbation screen",
        "annotations": "known properties of variants or genes",
        "draws": "draws from a posterior or null distribution",
        "chains": "independent Markov chains",
    }
)
"""Name of each dimension and what one item along it is."""
