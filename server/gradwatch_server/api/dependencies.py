"""What routes need, as types; and how arguments that make no sense are answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import Depends, HTTPException, Path, Query, Request
from gradwatch.frames import MAX_COUNT

from ..pulse import Pulse
from ..store import runs
from ..store.store import Store
from ..store.views import View


def _store(request: Request) -> Store:
    pulse: Pulse = request.app.state.pulse
    if pulse.away is not None:  # or everybody who asks would wait as long as a query may take
        raise HTTPException(503, "the database does not answer now: ask again", {"retry-after": "2"})
    return cast(Store, request.app.state.store)


StoreDep = Annotated[Store, Depends(_store)]


async def _known_run(run: Annotated[str, Path(max_length=64)], store: StoreDep) -> dict[str, Any]:
    async with store.engines.read.connect() as connection:
        found = await runs.get_run(connection, run)
    if found is None:
        raise HTTPException(404, "there is no such run: GET api/runs lists those there are")
    return found


RunDep = Annotated[dict[str, Any], Depends(_known_run)]
Step = Annotated[int | None, Query(ge=0, le=MAX_COUNT)]


async def _known_view(
    run: RunDep,
    store: StoreDep,
    attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    rank: Annotated[int | None, Query(ge=0, le=MAX_COUNT)] = None,
) -> View:
    if attempt is not None and attempt > run["attempt"]:
        raise bad_argument(f"'attempt' must be from 1 to {run['attempt']}")
    if rank is not None and rank not in run["ranks"]:
        raise bad_argument(f"'rank' must be one of {run['ranks']}")
    return await store.queries.view(run["id"], attempt, rank)


ViewDep = Annotated[View, Depends(_known_view)]


@dataclass(frozen=True, slots=True)
class Range:
    """The steps a request asks for."""

    first: int | None
    last: int | None

    def within(self, view: View) -> tuple[int, int]:
        """First and last step; an end that is not given is the run's own. first > last: there is nothing."""
        if view.first_step is None or view.last_step is None:
            return 0, -1
        return view.first_step if self.first is None else self.first, (
            view.last_step if self.last is None else self.last
        )


def _range(first: Step = None, last: Step = None) -> Range:
    if first is not None and last is not None and first > last:
        raise bad_argument("'first' must not be above 'last'")
    return Range(first, last)


RangeDep = Annotated[Range, Depends(_range)]


def bad_argument(sentence: str) -> HTTPException:
    """The answer to an argument that makes no sense."""
    return HTTPException(422, sentence)
