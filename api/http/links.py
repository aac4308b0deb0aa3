"""Links in the OpenAPI document: which operations take the id that an answer holds."""

from __future__ import annotations

from typing import Any

__all__ = ["add_links"]

# What makes something, and the parameter that its id is.
MAKERS = {
    ("post", "/v1/traces"): "trace_id",
    ("post", "/v1/imports"): "trace_id",
    ("post", "/v1/uploads/{upload_id}/finish"): "trace_id",
    ("post", "/v1/uploads"): "upload_id",
    ("post", "/v1/series"): "series_id",
    ("post", "/v1/topologies"): "topology_id",
    ("post", "/v1/plans"): "plan_id",
    ("post", "/v1/fronts"): "front_id",
    ("post", "/v1/replans"): "replan_id",
    ("post", "/v1/simulations"): "simulation_id",
    ("post", "/v1/mixtures"): "mixture_id",
    ("post", "/v1/keys"): "key_id",
}
MADE = ("200", "201", "202")
FIRST = {"number": 0}  # the other parameters of a path, where one value is there for sure


def add_links(content: dict[str, Any]) -> None:
    """Add ``links`` to the answers that tell a new id: one to each operation on what has this id.

    Parameters
    ----------
    content : dict
        An OpenAPI document; changed in place.
    """
    for (method, path), name in MAKERS.items():
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "description": operation["summary"],
                "parameters": {name: "$response.body#/id"}
                | {given: value for given, value in FIRST.items() if f"{{{given}}}" in target},
            }
            for target, operations in content["paths"].items()
            if f"{{{name}}}" in target
            for operation in operations.values()
        }
        for status, response in content["paths"][path][method]["responses"].items():
            if status in MADE:
                response["links"] = links
