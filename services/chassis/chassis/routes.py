"""Route templates: the label of a request in metrics and logs, and routers laid out flat.

FastAPI keeps included routers as a tree and matches it twice per level. `include_flat` adds the
routes of a router to the application itself, with their full path, so that one pass finds them and
`scope["route"].path_format` is the whole template.
"""

from __future__ import annotations

import inspect
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Route
from starlette.types import Scope

from chassis.metrics import UNMATCHED


def include_flat(
    app: FastAPI, router: APIRouter, *, prefix: str = "", deprecated: bool = False
) -> None:
    """Add the routes of `router` under `prefix`, flat where FastAPI's own routes allow it."""
    tree = APIRouter()
    tree.include_router(router, prefix=prefix, deprecated=deprecated or None)
    contexts = list(iter_route_contexts(tree.routes))
    if not _plain(tree) or not all(type(c.original_route) is APIRoute for c in contexts):
        app.include_router(router, prefix=prefix, deprecated=deprecated or None)
        return
    names = [
        name
        for name in inspect.signature(APIRouter.add_api_route).parameters
        if name not in {"self", "path", "endpoint", "route_class_override"}
    ]
    for context in contexts:
        route: Any = context
        original = context.original_route
        app.router.add_api_route(
            context.path or "",
            route.endpoint,
            **{
                name: getattr(route, name) if hasattr(route, name) else getattr(original, name)
                for name in names
            },
        )


def _plain(router: APIRouter) -> bool:
    """Say whether no router of this tree carries form limits, which only the tree can apply."""
    children = [getattr(route, "original_router", None) for route in router.routes]
    return not router.form_limits and all(_plain(child) for child in children if child is not None)


class RouteLabels:
    """Finds the template of the route that served a request."""

    def __init__(self, app: FastAPI) -> None:
        self._by_endpoint: dict[Any, str] = {
            route.endpoint: route.path
            for route in app.routes
            if isinstance(route, Route) and not isinstance(route, APIRoute)
        }

    def __call__(self, scope: Scope) -> str:
        """Return the template, such as `/v1/items/{item_id}`; unmatched paths share one value."""
        inner = scope.get("fastapi")
        if inner:
            context = inner.get("effective_route_context")
            if context is not None:
                return str(context.path_format or UNMATCHED)
        route = scope.get("route")
        if route is not None:
            return str(route.path_format)
        return self._by_endpoint.get(scope.get("endpoint"), UNMATCHED)
