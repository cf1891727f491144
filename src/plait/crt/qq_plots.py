"""QQ figures of negative controls: doors to `plait.plot` that take frames, as programDE's."""

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.crt.ntc_groups import NullHistogram
from plait.crt.p_values import compute_null_pvals_from_null_stats
from plait.crt.qq import SMALLEST_P, bootstrap_qq_envelope, is_bh_adjusted_like, qq_coords
from plait.errors import DataWarning, InputError, LabelError, OptionError, ShapeError
from plait.numerics import skew_normal
from plait.plot.screen_qq import QQBand, QQCurve, plot_qq_curves, screen_qq, uniform_band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

Array = NDArray[np.float64]
Ensemble = Mapping[int, "DataFrame"] | Sequence["DataFrame"]
LABELS = {
    "raw": "NTC (raw)",
    "skew": "NTC (skew)",
    "null": "null",
    "null_skew": "null (skew)",
    "all": "All observed",
    "band": "95% CI",
    "reference": "y=x",
    "ensemble": "NTC ensemble IQR",
}
COLOURS = {
    "raw": "#1f77b4",
    "skew": "#ff7f0e",
    "null": "#7f7f7f",
    "null_skew": "#2ca02c",
    "all": "#9467bd",
    "band": "#d9d9d9",
}
_HOLDOUT, _REAL = "NTC holdout (B vs A)", "Real genes (vs A)"
_META_SEED, _BATCH_SEED = 7, 17


def qq_plot_ntc_pvals(
    pvals_raw_df: "DataFrame",
    guide2gene: Mapping[str, str],
    ntc_genes: str | Sequence[str],
    *,
    pvals_skew_df: "DataFrame | None" = None,
    null_pvals: "ArrayLike | NullHistogram | None" = None,
    null_stats: ArrayLike | None = None,
    null_two_sided: bool = True,
    show_null_skew: bool = False,
    null_skew_samples: int | None = None,
    null_skew_seed: int = 0,
    expected_grid_raw: ArrayLike | None = None,
    expected_grid_all: ArrayLike | None = None,
    ntc_group_pvals_ens: Ensemble | None = None,
    ntc_group_pvals_skew_ens: Ensemble | None = None,
    show_ntc_ensemble_band: bool = False,
    ntc_band_quantiles: ArrayLike | None = None,
    ntc_band_alpha: float = 0.15,
    ax: "Axes | None" = None,
    title: str | None = None,
    labels: Mapping[str, str] | None = None,
    colors: Mapping[str, str] | None = None,
    marker: str = ".",
    marker_size: float = 12.0,
    marker_alpha: float = 0.6,
    show_ref_line: bool = True,
    show_conf_band: bool = True,
    conf_alpha: float = 0.05,
    show_all_pvals: bool = True,
) -> "Axes":
    """Draw p-values of negative controls beside those of all genes and of resamples.

    Parameters
    ----------
    pvals_raw_df : (genes, programs) DataFrame
        Counted p-values, not adjusted.
    guide2gene : mapping
    ntc_genes : str or sequence of str
        Targets that stand for negative controls.
    pvals_skew_df : (genes, programs) DataFrame, optional
        Skew-normal p-values, for a second curve.
    null_pvals : array or NullHistogram, optional
        p-values of resamples (`compute_ntc_group_null_pvals_parallel`) of the same kind of unit.
    null_stats : (resamples,) or (resamples, programs) array, optional
        Statistics of resamples, of which the p-values are made; one of the two is needed.
    null_two_sided : bool
        Whether absolute statistics are compared; else large ones are extreme.
    show_null_skew : bool
        Also draw p-values of samples of a skew-normal fitted to ``null_stats``.
    null_skew_samples, null_skew_seed : int
        How many (default as many as there are statistics), and their seed.
    expected_grid_raw, expected_grid_all : array, optional
        Expected p-values, ascending, of the controls and of all; default (i - 0.5) / m.
    ntc_group_pvals_ens, ntc_group_pvals_skew_ens : dict or sequence of DataFrame, optional
        p-values of sets of groups; the curves pool all of them. Needed both if
        ``pvals_skew_df`` is given.
    show_ntc_ensemble_band : bool
        Shade between the quartiles of the sets.
    ntc_band_quantiles : array, optional
        Probabilities in (0, 1) at which they are taken; default 200 from 0.01 to 0.99.
    ntc_band_alpha : float
        Opacity of that band.
    ax : matplotlib Axes, optional
    title : str, optional
    labels, colors : mapping, optional
        Replace some of `LABELS` and `COLOURS`.
    marker, marker_size, marker_alpha
        Of all observed p-values.
    show_ref_line, show_conf_band, show_all_pvals : bool
    conf_alpha : float
        Share of uniform p-values outside the band, which is for as many as the null has.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        Something needed is missing, or there are no finite p-values.
    LabelError
        Controls are no targets, or not in the frames.

    Warns
    -----
    DataWarning
        The p-values look adjusted for multiple testing.
    """
    names, colours = _replaced(LABELS, labels, "labels"), _replaced(COLOURS, colors, "colors")
    if conf_alpha != 0.05 and not (labels and "band" in labels):
        names["band"] = f"{100 * (1 - conf_alpha):g}% CI"
    grouped = _frames(ntc_group_pvals_ens)
    grouped_skew = _frames(ntc_group_pvals_skew_ens)
    controls = [ntc_genes] if isinstance(ntc_genes, str) else list(ntc_genes or ())
    _check_sources(pvals_raw_df, pvals_skew_df, controls, guide2gene, grouped, grouped_skew)
    null, n_null = _null_curve(null_pvals, null_stats, null_two_sided)
    if is_bh_adjusted_like(pvals_raw_df.to_numpy()):
        warnings.warn(
            "the p-values look adjusted for multiple testing; a QQ plot is for raw ones.",
            DataWarning,
            stacklevel=2,
        )
    raw = _pooled(grouped) if grouped else pvals_raw_df.loc[controls].to_numpy()
    curves = []

    def add(what: str, coordinates: tuple[Array, Array], style: str, **how: Any) -> None:
        curves.append(QQCurve(*coordinates, names[what], colours[what], style, **how))

    if show_all_pvals:
        points = {"marker": marker, "size": marker_size, "alpha": marker_alpha}
        observed = _coordinates(pvals_raw_df.to_numpy(), expected_grid_all, "expected_grid_all")
        add("all", observed, "points", **points)
    add("raw", _coordinates(raw, expected_grid_raw, "expected_grid_raw"), "solid")
    if pvals_skew_df is not None:
        skew = _pooled(grouped_skew) if grouped else pvals_skew_df.loc[controls].to_numpy()
        add("skew", _coordinates(skew, None, ""), "solid")
    add("null", null, "dashed")
    if show_null_skew:
        sampled = _skew_normal_null(null_stats, null_skew_samples, null_skew_seed)
        add("null_skew", qq_coords(sampled), "dotted")
    over = None
    if show_ntc_ensemble_band:
        over = _ensemble_band(
            grouped, ntc_band_quantiles, names["ensemble"], colours["raw"], ntc_band_alpha
        )
    under = uniform_band(n_null, conf_alpha, names["band"], colours["band"])
    drawn = screen_qq(
        curves,
        under=under if show_conf_band else None,
        over=over,
        reference=names["reference"] if show_ref_line else None,
        title=title,
        ax=ax,
    )
    drawn.set_xlabel("Expected -log10(p)")  # programDE's
    drawn.set_ylabel("Observed -log10(p)")
    return drawn


def make_ntc_empirical_qq_plots(
    out: Mapping[str, Any],
    out_dir: str | os.PathLike[str],
    programs_to_plot: str | Sequence[Any] | None = "top_var",
    n_programs: int = 6,
    make_per_batch: bool = True,
    make_meta: bool = True,
    envelope_boot: int = 200,
    seed: int = 0,
) -> list[Path]:
    """Draw how held-out control units and genes compare with the other half of the controls.

    Parameters
    ----------
    out : dict
        Of `run_all_genes_union_crt` with ``null_method="ntc_empirical"`` and ``qq_crossfit=True``.
    out_dir : str or path
        Made if need be; files are replaced.
    programs_to_plot : "top_var", str, sequence or None
        The programs whose effects vary most over genes, names or positions (from 0) of programs,
        or none.
    n_programs : int
        How many of "top_var" (6).
    make_per_batch, make_meta : bool
        Whether each batch, and their combination, are drawn.
    envelope_boot : int
        Resamples of the held-out units for the envelope (200).
    seed : int
        Of these.

    Returns
    -------
    list of Path
        ``qq_ntc_empirical_genelevel_meta.png``, ``qq_ntc_empirical_program_<program>_meta.png`` and
        the same without ``_meta`` in ``per_batch/<batch>``.

    Raises
    ------
    InputError
        There is no ``ntc_crossfit``, or a program is unknown.
    """
    crossfit = out.get("ntc_crossfit")
    if crossfit is None:
        raise InputError(
            "there is no 'ntc_crossfit': call run_all_genes_union_crt with "
            "null_method='ntc_empirical' and qq_crossfit=True."
        )
    programs = _programs(out["betas_df"], programs_to_plot, n_programs)
    controls = crossfit.get("negative_controls", [])

    def genes_of(p: Any) -> Any:
        """Leave out genes that are negative controls: they are compared with themselves."""
        return p.drop(index=controls)

    places: list[tuple[Path, str, str, dict[str, Any], int]] = []
    names = ("real_gene", "ntcB_gene", "real", "ntcB")
    if make_meta:
        p = {name: crossfit[f"meta_p_{name}_vs_A"] for name in names}
        places.append((Path(out_dir), "_meta", "combined", p, _META_SEED))
    if make_per_batch:
        for batch in crossfit["p_real_vs_A_by_batch"]:
            p = {name: crossfit[f"p_{name}_vs_A_by_batch"][batch] for name in names}
            folder = Path(out_dir) / "per_batch" / _file_name(batch)
            places.append((folder, "", f"batch {batch}", p, _BATCH_SEED))
    written = []
    for folder, suffix, where, p, offset in places:
        path = folder / f"qq_ntc_empirical_genelevel{suffix}.png"
        real = genes_of(p["real_gene"])
        _draw_crossfit(path, f"Genes, {where}", real, p["ntcB_gene"], envelope_boot, seed)
        written.append(path)
        for i, program in enumerate(programs):
            path = folder / f"qq_ntc_empirical_program_{_file_name(program)}{suffix}.png"
            real, held_out = genes_of(p["real"])[program], p["ntcB"][program]
            title = f"{program}, {where}"
            _draw_crossfit(path, title, real, held_out, envelope_boot, seed + offset + i)
            written.append(path)
    return written


def _draw_crossfit(
    path: Path, title: str, real: Any, held_out: Any, resamples: int, seed: int
) -> None:
    curves = {
        label: qq_coords(p)
        for label, p in ((_HOLDOUT, held_out), (_REAL, real))
        if np.isfinite(p).any()
    }
    envelope = bootstrap_qq_envelope(held_out, resamples, seed=seed) if _HOLDOUT in curves else None
    plot_qq_curves(curves, path, title, envelope)


def _programs(betas: "DataFrame", wanted: str | Sequence[Any] | None, n_programs: int) -> list[Any]:
    known = list(betas.columns)
    if wanted is None:
        return []
    if isinstance(wanted, str) and wanted == "top_var":
        order = np.argsort(-betas.to_numpy().var(axis=0), kind="stable")
        return [known[k] for k in order[:n_programs]]
    chosen = []
    for program in [wanted] if isinstance(wanted, str) else wanted:
        if isinstance(program, (int, np.integer)) and program not in known:
            if not 0 <= program < len(known):
                raise OptionError(f"there is no program {program}; there are {len(known)}, from 0.")
            chosen.append(known[int(program)])
        elif program in known:
            chosen.append(program)
        else:
            raise LabelError(
                f"there is no program {program!r}; there are {', '.join(map(str, known[:5]))}"
                f"{', ...' if len(known) > 5 else ''}."
            )
    return chosen


def _file_name(name: Any) -> str:
    return re.sub(r"[\s/\\]", "_", str(name))


def _replaced(
    defaults: Mapping[str, str], given: Mapping[str, str] | None, what: str
) -> dict[str, str]:
    if unknown := sorted(set(given or {}) - set(defaults)):
        raise OptionError(f"{what} has {unknown[0]!r}; there are {', '.join(defaults)}.")
    return {**defaults, **(given or {})}


def _frames(ensemble: Ensemble | None) -> list["DataFrame"]:
    if ensemble is None:
        return []
    return list(ensemble.values() if isinstance(ensemble, Mapping) else ensemble)


def _check_sources(
    raw: "DataFrame | None",
    skew: "DataFrame | None",
    controls: list[str],
    guide2gene: Mapping[str, str],
    grouped: list["DataFrame"],
    grouped_skew: list["DataFrame"],
) -> None:
    if raw is None:
        raise InputError("pvals_raw_df is needed: the counted p-values of genes and programs.")
    if not controls:
        raise InputError("ntc_genes is empty; name the targets that are negative controls.")
    if grouped:
        if skew is not None and not grouped_skew:
            raise InputError(
                "the skew-normal p-values of groups are missing: give ntc_group_pvals_skew_ens "
                "beside ntc_group_pvals_ens and pvals_skew_df."
            )
        return
    targets = set(guide2gene.values())
    if unknown := [gene for gene in controls if gene not in targets]:
        raise LabelError(f"no guide has the target {unknown[0]!r} of ntc_genes.")
    for name, frame in (("pvals_raw_df", raw), ("pvals_skew_df", skew)):
        if frame is not None and (absent := [g for g in controls if g not in frame.index]):
            raise LabelError(f"{name} has no row {absent[0]!r}, which ntc_genes names.")


def _pooled(frames: list["DataFrame"]) -> Array:
    return np.concatenate([frame.to_numpy(dtype=np.float64).ravel() for frame in frames])


def _coordinates(p: ArrayLike, grid: ArrayLike | None, what: str) -> tuple[Array, Array]:
    x, y = qq_coords(p)
    if grid is None:
        return x, y
    expected = np.asarray(grid, dtype=np.float64)
    if expected.shape != x.shape:
        raise ShapeError(
            f"{what} has shape {expected.shape} and there are {len(x)} finite p-values."
        )
    return -np.log10(np.clip(np.sort(expected), SMALLEST_P, 1.0)), y


def _null_curve(
    p_values: "ArrayLike | NullHistogram | None", statistics: ArrayLike | None, two_sided: bool
) -> tuple[tuple[Array, Array], int]:
    """Return the curve of the null, and how many p-values it is of."""
    if p_values is None and statistics is None:
        raise InputError("the null is missing: give null_pvals or null_stats.")
    if isinstance(p_values, NullHistogram):
        occurs = p_values.counts > 0
        last = np.cumsum(p_values.counts[occurs])
        first = last - p_values.counts[occurs] + 1
        if not len(last):
            raise InputError("null_pvals counts no p-values.")
        # A run of equal p-values is a level line between its first and last rank.
        expected = (np.column_stack([first, last]).ravel() - 0.5) / last[-1]
        return (-np.log10(expected), np.repeat(-np.log10(p_values.p[occurs]), 2)), int(last[-1])
    if statistics is not None and p_values is None:
        p_values = compute_null_pvals_from_null_stats(statistics, 0 if two_sided else 1)
    assert p_values is not None
    curve = qq_coords(p_values)
    return curve, len(curve[0])


def _skew_normal_null(statistics: ArrayLike | None, count: int | None, seed: int) -> Array:
    """Return two-sided p-values of samples of the skew-normal fitted to standardised statistics."""
    if statistics is None:
        raise InputError("show_null_skew needs null_stats, to which a skew-normal is fitted.")
    t = np.asarray(statistics, dtype=np.float64)
    deviation = t.std(axis=0)
    if not (deviation > 0).all():
        raise InputError("null_stats do not vary; a skew-normal cannot be fitted.")
    z = ((t - t.mean(axis=0)) / deviation).ravel()
    location, scale, shape, *_ = skew_normal.fit_by_moments(z)
    random = np.random.default_rng(seed)
    a, b = random.standard_normal((2, z.size if count is None else count))
    delta = shape / np.hypot(1.0, shape)
    samples = location + scale * (delta * np.abs(a) + np.sqrt(1 - delta**2) * b)
    upper = skew_normal.log_upper_tail(samples, location, scale, shape)
    lower = skew_normal.log_upper_tail(-samples, -location, scale, -shape)
    p: Array = np.minimum(2 * np.exp(np.minimum(upper, lower)), 1.0)
    return p


def _ensemble_band(
    frames: list["DataFrame"],
    probabilities: ArrayLike | None,
    label: str,
    colour: str,
    opacity: float,
) -> QQBand:
    if not frames:
        raise InputError("show_ntc_ensemble_band needs ntc_group_pvals_ens.")
    at = (
        np.linspace(0.01, 0.99, 200)
        if probabilities is None
        else np.sort(np.asarray(probabilities))
    )
    if not ((at > 0) & (at < 1)).all() or not len(at):
        raise OptionError("ntc_band_quantiles must be between 0 and 1.")
    levels = np.array([np.nanquantile(frame.to_numpy(dtype=np.float64), at) for frame in frames])
    low, high = np.quantile(-np.log10(np.clip(levels, SMALLEST_P, 1.0)), [0.25, 0.75], axis=0)
    return QQBand(-np.log10(at), low, high, label, colour, opacity)
