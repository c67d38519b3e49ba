"""The settings in which two trials differ, as far as they mean something in both."""

from collections.abc import Iterator, Mapping
from typing import Any

from dlx.settings.flat import flattened

OF_DROPPING = ("dropout.kind", "dropout.where")


def differing_settings(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yields key, our value and theirs where they differ; None where one of them lacks the setting.

    A trial that drops nothing has no kind and place of dropout, in which the other one does not differ from it then.
    """
    mine, other = flattened(ours), flattened(theirs)
    for key in (*mine, *(key for key in other if key not in mine)):
        if mine.get(key) != other.get(key) and not (key in OF_DROPPING and (key in mine) != (key in other)):
            yield key, mine.get(key), other.get(key)
