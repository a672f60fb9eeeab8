"""Account: who asks, and what can be asked for."""

from __future__ import annotations

from api.contract import Access, Room
from api.house import house
from api.models.account import Me, Pipeline, Pipelines, Tenant, User
from api.people import memberships
from api.reading import read
from api.tokens import Caller

account = Room("account", "The user, the tenants it is a member of, and the pipelines there are.")


@account.call("GET", "/me", "Who am I", access=Access.USER, gives=Me)
def show_me(caller: Caller) -> Me:
    """The user and its tenants. Someone in several tenants sends `X-Tenant-Id` with all other calls."""
    rows = memberships(house(), caller)
    tenants = [Tenant(id=row["tenant_id"], name=row["name"], role=row["role"]) for row in rows]
    return Me(user=User(id=caller.user_id, email=caller.email), tenants=tenants)


@account.call("GET", "/pipelines", "List pipelines", access=Access.USER, gives=Pipelines)
def list_pipelines(caller: Caller) -> Pipelines:
    """What jobs can be started for, with the JSON Schema of their parameters."""
    rows = read(house(), caller, "pipelines_current")
    return Pipelines(pipelines=[Pipeline(**row) for row in rows])
