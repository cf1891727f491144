"""What two choices of the recipe cost in a study of six tissues: the claims of docs/mash.md.

Run with ``python benchmarks/demo_choices.py [seed ...]``: for each treatment of the correlation of
the errors and each start of the extreme deconvolution, the true effects found at lfsr < 0.05 and
the realised false-sign rate among all calls.
"""

import sys

from plait import mash
from plait.simulate.tissues import tissue_study

LEVEL = 0.05


def correlations(data):
    """Return the treatments of the errors: none, as R, and with the truncation undone."""
    yield "ignored", data
    for method in ("simple", "truncated_ml"):
        V = mash.estimate_null_correlation_simple(data, method=method)
        yield method, mash.mash_update_data(data, V=V)


def starts(data, strong):
    """Return the covariances that are learned: none, from rank 1, and from full rank."""
    components = mash.cov_pca(data, 3, strong)
    learned = mash.cov_ed(data, mash.lift_cov(components, 0.1), subset=strong)
    yield "canonical only", {}
    yield "rank-1 starts", mash.cov_ed(data, components, subset=strong)
    yield "full-rank starts", learned
    yield "lifted again", mash.lift_cov(learned)


def main(seeds):
    print(f"{'seed':>4}  {'error correlation':<18} {'learned':<17} {'found':>6}  false-sign rate")
    for seed in seeds:
        study = tissue_study(20_000, seed)
        plain = mash.mash_set_data(study.bhat, study.shat, alpha=1)
        strong = mash.get_significant_results(mash.mash_1by1(plain), thresh=LEVEL)
        for errors, data in correlations(plain):
            for learned, matrices in starts(data, strong):
                result = mash.mash(data, {**mash.cov_canonical(data), **matrices})
                called = mash.get_lfsr(result) < LEVEL
                right = called & (study.truth * mash.get_pm(result) > 0)
                wrong = 1 - right.sum() / called.sum()
                print(f"{seed:>4}  {errors:<18} {learned:<17} {right.sum():>6,}  {wrong:.3f}")


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [1])
