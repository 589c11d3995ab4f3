"""Which requests are held to have lost their engines."""

import asyncio

import pytest

from runner.config import AdmissionConfig
from runner.errors import ModelRefused
from runner.models.base import NoClock
from runner.models.endpoint import Endpoint
from runner.models.losses import ALONE_AFTER, Losses


def an_endpoint() -> Endpoint:
    return Endpoint(
        "http://localhost:1/v1", AdmissionConfig(), concurrency=1, on_event=lambda name, details: None
    )


async def test_an_engine_that_dies_is_one_loss_however_many_tries_it_had_failed_before_that_was_known() -> (
    None
):
    alone, endpoint = asyncio.Lock(), an_endpoint()
    losses = Losses(alone)
    for _ in range(ALONE_AFTER + 2):
        losses.note(endpoint, endpoint.n_losses)
    endpoint.lose()

    await losses.before_try(NoClock())

    assert not alone.locked()


async def test_a_request_is_refused_after_it_lost_an_engine_while_it_was_tried_alone() -> None:
    alone, endpoint = asyncio.Lock(), an_endpoint()
    losses = Losses(alone)
    for _ in range(ALONE_AFTER):
        losses.note(endpoint, endpoint.n_losses)
        endpoint.lose()
    await losses.before_try(NoClock())
    assert alone.locked()
    losses.note(endpoint, endpoint.n_losses)
    endpoint.lose()

    with pytest.raises(ModelRefused, match="3 engines were lost"):
        await losses.before_try(NoClock())

    losses.close()
    assert not alone.locked()
