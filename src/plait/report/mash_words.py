"""Settings of mash in the words of the command line, for the page."""

from plait.report.about import Words

WORDS: Words = {
    # How the mixture weights were found.
    "method": (
        "optimiser (--optmethod)",
        {
            "fixed": "none: weights of an earlier fit",
            "mixsqp": "mixsqp, which certifies its result",
        },
    ),
    "converged": ("converged", {}),
    "dual_gap": ("dual gap", {}),
    "niter": ("iterations", {}),
    "objective": ("objective", {}),
    "train_size": ("effects that weights were fitted on (--train-size)", {}),
    "n_train": ("effects that weights were fitted on (--train-size)", {}),
    "select_method": (
        "which ones (--select-method)",
        {
            "topz_random": "strong and random ones",
            "random": "random ones",
        },
    ),
    "background_fraction": ("random share of them (--background-fraction)", {}),
    "weighting": (
        "do they stand for those left out (--weighting)",
        {"inclusion": "yes, by the chance of being chosen", "none": "no"},
    ),
    # How effects were estimated.
    "missing": (
        "missing cells (--missing)",
        {"exact": "left out of the likelihood", "large_se": "given a large standard error"},
    ),
    "components": ("components", {}),
    "pi_thresh": ("components with less weight are left out (--pi-thresh)", {}),
    "outputlevel": (
        "what was written (--outputlevel)",
        {
            "1": "weights",
            "2": "weights and posterior",
            "3": "posterior covariances, too",
            "4": "likelihoods of components, too",
        },
    ),
    "g": ("weights given (--g)", {}),
    "seed": ("seed", {}),
    "seconds": ("seconds", {}),
    "command": ("command", {}),
}
"""Of each setting: what it is, and the option it is of; and what its values mean."""
