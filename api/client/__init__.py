"""A Python client of the service: uploads that resume, plans that are awaited or watched, typed answers.

with Client("http://127.0.0.1:8000") as service:
    trace = service.upload("examples/tiny_moe/tiny_moe.npz")
    plan = service.plan(PlanBody(trace=trace.id, topology="1x4", engine="vllm"))
    for news in service.watch(plan.id):
        print(news.score, news.gap)
    plan = service.wait(plan.id)
"""

from api.client.client import Client
from api.client.connection import ServiceError

__all__ = ["Client", "ServiceError"]
