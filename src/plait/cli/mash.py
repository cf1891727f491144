"""``plait mash``: the commands of multivariate adaptive shrinkage."""

from plait.cli import mash_fit, mash_learn, mash_show
from plait.cli.options import command_group, documented

_TABLES = "--bhat demo/tables/bhat.csv --shat demo/tables/shat.csv"

COMMANDS = (
    ("fit", mash_fit.fit, f"plait mash fit {_TABLES} --alpha 1 --out my_result"),
    (
        "apply",
        mash_fit.apply,
        f"plait mash apply --g demo/tables/results.npz {_TABLES} --alpha 1 --out applied",
    ),
    ("onebyone", mash_fit.onebyone, f"plait mash onebyone {_TABLES} --alpha 1 --out screen"),
    ("pca", mash_learn.pca, f"plait mash pca {_TABLES} --alpha 1 --out pca.npz"),
    ("ed", mash_learn.ed, f"plait mash ed {_TABLES} --alpha 1 --out ed.npz"),
    ("ud", mash_learn.ud, f"plait mash ud {_TABLES} --alpha 1 --n-unconstrained 2 --out ud.npz"),
    (
        "estimate-null-corr-simple",
        mash_learn.estimate_null_corr_simple,
        f"plait mash estimate-null-corr-simple {_TABLES} --out vhat.npy",
    ),
    (
        "estimate-null-corr-em",
        mash_learn.estimate_null_corr_em,
        f"plait mash estimate-null-corr-em {_TABLES} --alpha 1 --out vhat_em.csv",
    ),
    ("sharing", mash_show.sharing, "plait mash sharing demo/tables/results.npz --out sharing.png"),
    (
        "significant",
        mash_show.significant,
        "plait mash significant demo/tables/results.npz --out significant.csv",
    ),
    (
        "plot-meta",
        mash_show.plot_meta,
        "plait mash plot-meta demo/tables/results.npz --effect 0 --out forest.png",
    ),
    ("plots", mash_show.plots, "plait mash plots demo/tables/results.npz --out figures"),
    ("check", mash_show.check, "plait mash check"),
)

app = command_group(
    "Which effects are real, and in which conditions are they shared?", "docs/mash.md"
)

for _name, _function, _example in COMMANDS:
    documented(app, _name, _function, _example, "docs/mash.md")
