"""Multivariate adaptive shrinkage.

Which effects are real, and in which contexts are they shared? Start with `mash_set_data`,
`cov_canonical` and `mash`.
"""
