"""A study whose variants may be networks of the user's own: their code is vouched for before the study is planned."""

from collections.abc import Iterable

from dlx.settings.own.named import with_named_code
from dlx.study.study import Study


def with_code_of_study(study: Study, named: Iterable[str], *, trusts: bool = False) -> Study:
    """The study with the digests of its networks' code, which may be loaded from now on: see `with_named_code`."""
    if not any(variant.spec.model.is_own for variant in study.variants):
        return study
    specs = with_named_code({v.label: v.spec for v in study.variants}, [*named], trusts=trusts)
    variants = tuple(v.model_copy(update={"spec": specs[v.label]}) for v in study.variants)
    return study.model_copy(update={"variants": variants})
