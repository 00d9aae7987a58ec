"""The loss landscape as a run's probes have seen it: tape, verdict on the clips, surfaces, map of the path."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from gradwatch.frames import MAX_COUNT

from ..landscape.thinning import thinned
from ..store.landscape_frames import CELLS, LINE, PATH, PLANE, SUMMARY, TRAJECTORY, UNSUPPORTED, VERDICT, ProbeRows
from ..store.probes import Anchor, Probes
from ..store.views import View
from .dependencies import RangeDep, StoreDep, ViewDep
from .landscape_json import Found, SnapshotFrames, SurfaceFrames, TapeFrames, VerdictFrames, as_json

router = APIRouter(prefix="/api/runs/{run}")

MOST_COLUMNS: Final = 2_000
# What is read for one answer: some tenths of a second.
MOST_LINE_FRAMES: Final = 4_000
MOST_LINE_BYTES: Final = 8 << 20
MOST_VERDICTS: Final = 1_000
MOST_VERDICT_BYTES: Final = 4 << 20
MOST_SURFACES: Final = 50
COARSEST: Final = 25  # points of the first level of a surface
MOST_SURFACE_BYTES: Final = 4 << 20
MOST_SNAPSHOTS: Final = 400
MOST_SNAPSHOT_BYTES: Final = 32 << 20


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one view."""

    probes: Probes
    view: View

    async def tape(self, columns: int, first: int, last: int) -> TapeFrames:
        known = await self.probes.anchors(self.view, LINE, SUMMARY)
        anchors = [anchor for anchor in known if first <= anchor.step <= last]
        before = known.index(anchors[0]) if anchors else 0
        every, kept = thinned(len(anchors), columns, before)
        while len(kept) > 1 and sum(anchors[at].frames for at in kept) > MOST_LINE_FRAMES:
            every, kept = thinned(len(anchors), len(kept) - 1, before)
        # The newest first: it must be whole, whatever the others take.
        chosen = [anchors[at] for at in reversed(kept)]
        pieces, _ = await self.probes.load(chosen, MOST_LINE_BYTES, LINE, SUMMARY)
        newest = await self.probes.newest(self.view, SUMMARY)
        summaries, _ = await self.probes.load(newest, MOST_LINE_BYTES, SUMMARY)
        return TapeFrames(pieces, len(anchors), every, summaries)

    async def verdict(self) -> VerdictFrames:
        anchors = await self.probes.anchors(self.view, VERDICT)
        every, kept = thinned(len(anchors), MOST_VERDICTS)
        # Those that are listed one by one are the newest without a gap; judged together are those spread evenly.
        chosen = sorted({*kept, *range(max(0, len(anchors) - MOST_VERDICTS // 5), len(anchors))}, reverse=True)
        even = {(anchors[at].attempt, anchors[at].step) for at in kept}
        pieces, _ = await self.probes.load([anchors[at] for at in chosen], MOST_VERDICT_BYTES, VERDICT)
        refused = await self.probes.newest(self.view, UNSUPPORTED)
        reasons, _ = await self.probes.load(refused[-1:], MOST_VERDICT_BYTES, UNSUPPORTED)
        later = (
            anchors and refused and (anchors[-1].attempt, anchors[-1].step) >= (refused[-1].attempt, refused[-1].step)
        )
        return VerdictFrames(pieces, every, even, [] if later else reasons)

    async def surfaces(self, wanted: int | None) -> SurfaceFrames:
        anchors = await self.probes.anchors(self.view, PLANE)
        planes, _ = await self.probes.load(anchors[: -MOST_SURFACES - 1 : -1], MOST_SURFACE_BYTES, PLANE)
        planes = list({plane.key: plane for plane in planes}.values())
        asked = [plane for plane in planes if wanted in (None, plane.probe)]
        if not asked and wanted is not None:
            older, _ = await self.probes.load(anchors[:-MOST_SURFACES], MOST_SURFACE_BYTES, PLANE)
            asked = [plane for plane in older if plane.probe == wanted]
        computed = await self._computed(anchors, planes)
        if wanted is None:  # one that has just begun would take the place of a picture by a few dots
            asked = [plane for plane in asked if computed[plane.key] >= COARSEST] or asked
        shown = max(asked, key=lambda plane: plane.key, default=None)
        pieces: list[ProbeRows] = []
        if shown is not None:
            at = [anchor for anchor in anchors if (anchor.attempt, anchor.step) == (shown.attempt, shown.step)]
            found, _ = await self.probes.load(at, MOST_SURFACE_BYTES, PLANE, CELLS, PATH)
            pieces = [piece for piece in found if piece.key == shown.key]
        return SurfaceFrames(planes, computed, pieces)

    async def _computed(self, anchors: Sequence[Anchor], planes: Sequence[ProbeRows]) -> dict[tuple[int, int], int]:
        """How many cells of each plane were computed, about: a cell that was sent twice counts twice."""
        at = {(anchor.attempt, anchor.step): anchor for anchor in anchors}
        mine = {plane.key: at[plane.attempt, plane.step] for plane in planes}
        counts = await self.probes.counts(list(dict.fromkeys(mine.values())), CELLS)
        found = {key: counts.get(anchor, 0) for key, anchor in mine.items()}
        shared = [anchor for anchor in counts if sum(other == anchor for other in mine.values()) > 1]
        if shared:
            cells, _ = await self.probes.load(shared, MOST_SURFACE_BYTES, CELLS)
            for key in [key for key, anchor in mine.items() if anchor in shared]:
                found[key] = sum(len(piece.columns["i"]) for piece in cells if piece.key == key)
        return found

    async def trajectory(self) -> SnapshotFrames:
        anchors = await self.probes.anchors(self.view, TRAJECTORY)
        counts = await self.probes.counts(anchors, TRAJECTORY)
        every, kept = thinned(len(anchors), MOST_SNAPSHOTS)
        chosen = [anchors[at] for at in reversed(kept)]
        pieces, _ = await self.probes.load(chosen, MOST_SNAPSHOT_BYTES, TRAJECTORY)
        until = {segment.stream.attempt: segment.until for segment in self.view.segments}
        total = sum(counts.values()) if every > 1 else None
        return SnapshotFrames(pieces, until, total, MOST_SNAPSHOTS)


@router.get("/landscape")
async def get_landscape(
    store: StoreDep,
    view: ViewDep,
    steps: RangeDep,
    columns: Annotated[int, Query(ge=1, le=MOST_COLUMNS)] = 300,
    surface: Annotated[int | None, Query(ge=0, le=MAX_COUNT)] = None,
) -> dict[str, Any]:
    """Everything the probes of a run say, thinned to what a page can show. ``surface``: of which probe; by default
    the newest whose coarsest points are known.

    ``first`` and ``last`` are those of the tape: whoever looks closer at some steps still wants the whole path, and the
    verdict on the whole run.
    """
    # Not the view's own ends: a probe may arrive before the step it is about.
    first = 0 if steps.first is None else steps.first
    reader = _Reader(store.probes, view)
    last = MAX_COUNT if steps.last is None else steps.last
    found = Found(
        await reader.tape(columns, first, last),
        await reader.verdict(),
        await reader.surfaces(surface),
        await reader.trajectory(),
    )
    return await asyncio.to_thread(as_json, found)
