"""Settings of every kind, as an agent may have them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from messages import RetentionRatio, SemanticVad, ServerVad, Settings, ToolSpec, limits

__all__ = ["TOOLS", "any_settings"]

TOOLS = (
    ToolSpec("clock", "Tell the time.", {"type": "object", "properties": {}}),
    ToolSpec("lamp", "", {"type": "object", "properties": {"on": {"type": "boolean"}}}),
)

_EFFORTS = ["minimal", "low", "medium", "high", "xhigh"]
_vads = st.one_of(
    st.none(),
    st.builds(
        ServerVad,
        threshold=st.floats(0, 1),
        prefix_padding_ms=st.integers(0, 10_000),
        silence_duration_ms=st.integers(0, 60_000),
        idle_timeout_ms=st.none() | st.integers(5000, 30_000),
        create_response=st.booleans(),
        interrupt_response=st.booleans(),
    ),
    st.builds(
        SemanticVad,
        eagerness=st.sampled_from(["auto", "low", "medium", "high"]),
        create_response=st.booleans(),
        interrupt_response=st.booleans(),
    ),
)
_fields: dict[str, st.SearchStrategy[Any]] = {
    "instructions": st.sampled_from(["", "Be brief."]),
    "voice": st.sampled_from([*limits.VOICES, "voice_1234"]),
    "language": st.sampled_from([None, "en", ("en", "de")]),
    "transcription_model": st.sampled_from(
        [None, "gpt-transcribe", "gpt-live-transcribe", "gpt-realtime-whisper", "whisper-1", "own"]
    ),
    "transcription_prompt": st.sampled_from([None, "Names of rivers."]),
    "transcription_keywords": st.sampled_from([(), ("Rhine", "Elbe")]),
    "transcription_delay": st.sampled_from([None, *_EFFORTS]),
    "turn_detection": _vads,
    "noise_reduction": st.sampled_from([None, "near_field", "far_field"]),
    "output_modality": st.sampled_from(["audio", "text"]),
    "max_output_tokens": st.none() | st.integers(1, 4096),
    "tool_choice": st.sampled_from(["auto", "none", "required", "clock", "door"]),
    "parallel_tool_calls": st.sampled_from([None, True, False]),
    "reasoning_effort": st.sampled_from([None, *_EFFORTS]),
    "truncation": st.sampled_from(
        ["auto", "disabled", RetentionRatio(0.8), RetentionRatio(0.5, 5000)]
    ),
}
_settings = st.fixed_dictionaries(_fields).map(lambda fields: Settings(**fields))
any_settings = _settings.filter(lambda settings: limits.problem(settings) is None)
