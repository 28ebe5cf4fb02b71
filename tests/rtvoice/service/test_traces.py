"""A service traces its conversations, under their ids."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry import trace as otel

from rtvoice import Agent, PlaybackEnded
from rtvoice.service import CallInfo, Service
from rtvoice.testing import SandboxServer
from tests.loop import in_a_loop
from tests.rig import TIMEOUT_S
from tests.rtvoice.test_tracing import Recorder


@in_a_loop
async def test_a_service_traces_its_conversations_under_their_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder, calls = Recorder(), [CallInfo(), CallInfo()]
    monkeypatch.setattr(otel, "get_tracer_provider", lambda: recorder.provider)
    with SandboxServer(pace=0, timeout_s=2 * TIMEOUT_S) as sandbox:
        agent = Agent(server=sandbox.url, audio_input="silence", audio_output="null")
        service = Service(lambda _: agent, cpu_limit=None, lag_limit_ms=None)
        async with asyncio.timeout(4 * TIMEOUT_S):
            for call in calls:  # one agent, one conversation after the other
                async with service.session(call):
                    heard = agent.events(PlaybackEnded)
                    agent.send_text("what is your name")
                    await anext(aiter(heard))
                    await agent.stop()
            await service.drain()

    roots = recorder.named("turn")
    ids = [(root.attributes or {})["gen_ai.conversation.id"] for root in roots]
    assert ids == [call.id for call in calls]
    assert [len(recorder.children(root)) for root in roots] == [1, 1]
