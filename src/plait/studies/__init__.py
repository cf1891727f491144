"""Whole studies: several methods in a row, from files to a report, resumable stage by stage."""

from plait.studies.gwas_to_mash import StudySettings, gwas_to_mash

__all__ = ["StudySettings", "gwas_to_mash"]
