"""What a published `session.update` becomes: arguments of `Agent.update`, or a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from messages import EventError, RetentionRatio, SemanticVad, ServerVad
from rtvoice.publishing import changes_of


@pytest.mark.parametrize(
    ("session", "changes"),
    [
        ({"type": "realtime", "instructions": None}, {"instructions": ""}),
        ({"audio": {"output": {"speed": 1.2}}}, {"speech_speed": 1.2}),
        ({"audio": {"output": {"voice": {"id": "voice_1"}}}}, {"voice": "voice_1"}),
        (
            {"audio": {"input": {"transcription": {"language": "de", "prompt": "Rivers."}}}},
            {"language": "de", "transcription_prompt": "Rivers."},
        ),
        ({"audio": {"input": {"transcription": None}}}, {"transcription_model": None}),
        ({"audio": {"input": {"turn_detection": None}}}, {"turn_detection": None}),
        (
            {"audio": {"input": {"turn_detection": {"type": "server_vad", "threshold": 0.7}}}},
            {"turn_detection": ServerVad(0.7)},
        ),
        (
            {"audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}},
            {"turn_detection": SemanticVad()},
        ),
        (
            {"audio": {"input": {"noise_reduction": {"type": "far_field"}}}},
            {"noise_reduction": "far_field"},
        ),
        ({"audio": {"input": {"noise_reduction": None}}}, {"noise_reduction": None}),
        ({"output_modalities": ["text"]}, {"output_modality": "text"}),
        ({"max_output_tokens": "inf"}, {"max_output_tokens": "inf"}),
        ({"tool_choice": {"type": "function", "name": "clock"}}, {"tool_choice": "clock"}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        ({"reasoning": {"effort": "high"}}, {"reasoning_effort": "high"}),
        ({"truncation": "disabled"}, {"truncation": "disabled"}),
        (
            {
                "truncation": {
                    "type": "retention_ratio",
                    "retention_ratio": 0.8,
                    "token_limits": {"post_instructions": 5000},
                }
            },
            {"truncation": RetentionRatio(0.8, 5000)},
        ),
    ],
)
def test_a_session_update_changes_the_same_settings(
    session: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert changes_of(session) == changes


@pytest.mark.parametrize(
    ("session", "words"),
    [
        ({"model": "gpt-realtime-2"}, "model: it cannot change during a conversation"),
        ({"tools": []}, "tools: use agent.update(tools=...)"),
        ({"tracing": "auto"}, "tracing: a program cannot change it"),
        ({"output_modalities": ["text", "audio"]}, 'output_modalities: give ["audio"] or ["text"]'),
        ({"audio": {"input": {"transcription": {"speed": 1}}}}, "it has no speed"),
        ({"audio": {"input": {"turn_detection": {"type": "ears"}}}}, "Invalid value 'ears'"),
        ({"truncation": {"type": "retention_ratio"}}, "truncation: Expected `float`, got `null`"),
    ],
)
def test_what_cannot_change_so_is_refused(session: dict[str, Any], words: str) -> None:
    with pytest.raises(EventError) as refusal:
        changes_of(session)

    assert words in str(refusal.value)
