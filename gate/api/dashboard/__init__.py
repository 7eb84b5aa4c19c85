"""The dashboard: pages made on the server, readable without script. One router, so that one dependency guards it all."""

from fastapi import APIRouter

from gate.api.dashboard import assets, bases, evaluation, fleet, policies, queue, replay, reviews, waivers

router = APIRouter(include_in_schema=False)
for part in (fleet, evaluation, bases, policies, replay, queue, reviews, waivers):
    router.include_router(part.router)
public = APIRouter(include_in_schema=False)
public.include_router(assets.router)
"""Style sheet, script and icon: nothing in them is anybody's."""
