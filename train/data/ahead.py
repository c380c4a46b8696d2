"""Map with threads, in order and only a little ahead, so that memory stays bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from edge_runtime.errors import ConfigError

__all__ = ["map_ahead"]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_ahead(
    function: Callable[[_In], _Out], items: Iterable[_In], *, num_threads: int, ahead: int = 16
) -> Iterator[_Out]:
    """`map(function, items)` whose results are worked on before they are asked for.

    Args:
        function: called in threads; what it raises is raised where its result would come.
        items: drawn at most `ahead` before the result that is asked for.
        num_threads: 1 or more.
        ahead: results begun and not yet handed out.
    """
    if num_threads < 1 or ahead < 1:
        raise ConfigError(f"num_threads {num_threads} and ahead {ahead} must be 1 or more")
    waiting: deque[Future[_Out]] = deque()
    with ThreadPoolExecutor(max_workers=num_threads) as pool:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
