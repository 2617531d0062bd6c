from __future__ import annotations
import time
from fix_pipelines import Hooks, pipeline_with
from datetime import timedelta
from statemachine_pipeline import Pipeline, Stage
from statemachine_pipeline.batching import Batch
from statemachine_pipeline.testing import crash_everywhere
from statemachine_pipeline.testing import processes, trials


async def test_it(database_url: str) -> None:
    def make() -> Pipeline:
        cheap = vars(Hooks())
        at_once = Stage(cheap["store_embeddings"], batch=Batch(age=timedelta(0)))
        return Pipeline(database_url, hooks={**cheap, "store_embeddings": at_once})

    async def scenario(pipeline: Pipeline) -> None:
        await pipeline.submit(b"one\n\ntwo\n\nthree", name="a.txt")
        await pipeline.submit(b"one\n\ntwo\n\nthree\n---\nagain", name="b.txt")
    if 1:
        orig = trials.Trial.run
        async def run(self, point=None):
            t = time.monotonic()
            r = await orig(self, point)
            print(f"{time.monotonic()-t:.3f}", point, r.first.was_harmed, r.first.is_dead, r.calls, r.error)
            return r
        trials.Trial.run = run
    print(await crash_everywhere(make, scenario, most=30))
