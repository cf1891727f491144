"""Association scan: from genotypes and phenotypes to effects."""
