"""Remarks on batches and norms that were fitted to data or network, and so differ between variants or folds."""

from dataclasses import replace

from dlx.settings.spec import Spec
from dlx.study.study import Study
from dlx.trial.fit_batch import spell_patches
from dlx.trial.resolve import ResolvedTrials


def remark_on_batches(study: Study, resolved: ResolvedTrials) -> ResolvedTrials:
    """The same, with a remark on the batch of each trial if batches differ although the settings ask for the same.

    The difference between variants is then also that of their batches.
    """
    asked = {variant.label: _asked(variant.spec) for variant in study.variants}
    described = {
        (label, fold): _describe(one.spec, has_fitted_norm=asked[label][-1] == "auto")
        for (label, fold), one in resolved.items()
    }
    found: dict[tuple[object, ...], set[str]] = {}
    for (label, _), batch in described.items():
        found.setdefault(asked[label], set()).add(batch)
    return {
        place: replace(one, remarks=(*one.remarks, described[place])) if len(found[asked[place[0]]]) > 1 else one
        for place, one in resolved.items()
    }


def _asked(spec: Spec) -> tuple[object, ...]:
    batch = spec.batch
    limits = batch.max_voxels, batch.max_patches
    return batch.kind, batch.size, batch.patch_size_px, batch.slice_axis, *limits, spec.model.args.get("norm")


def _describe(spec: Spec, *, has_fitted_norm: bool) -> str:
    """`16 patches of 24 x 24 in a step, batch norm`; a norm that is set is left out."""
    patches = spell_patches((spec.batch.fitted_patch_size_px, spec.batch.fitted_size))
    return f"{patches} in a step" + (f", {spec.model.args['norm']} norm" if has_fitted_norm else "")
