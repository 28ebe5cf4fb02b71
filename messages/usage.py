"""Tokens by kind."""

from __future__ import annotations

import msgspec

__all__ = ["Tokens"]


class Tokens(msgspec.Struct, frozen=True, omit_defaults=True):
    """Numbers of tokens, by kind.

    Example:
        ```python
        from rtvoice import Tokens

        tokens = Tokens(input_text=100, cached_text=64) + Tokens(output_audio=20)
        print(tokens.total, tokens.cached)
        ```
    """

    input_text: int = 0
    """Text of the input: instructions, tools, transcripts, typed turns. Cached tokens count too."""
    input_audio: int = 0
    """Speech in the input; cached tokens count too."""
    input_image: int = 0
    """Images in the input; cached tokens count too."""
    cached_text: int = 0
    """Those of ``input_text`` that the service had in its cache."""
    cached_audio: int = 0
    """Those of ``input_audio`` that the service had in its cache."""
    cached_image: int = 0
    """Those of ``input_image`` that the service had in its cache."""
    output_text: int = 0
    output_audio: int = 0

    def __add__(self, other: Tokens) -> Tokens:
        names = self.__struct_fields__
        return Tokens(**{name: getattr(self, name) + getattr(other, name) for name in names})

    @property
    def input(self) -> int:
        """All tokens of the input."""
        return self.input_text + self.input_audio + self.input_image

    @property
    def cached(self) -> int:
        """Those of the input that the service had in its cache."""
        return self.cached_text + self.cached_audio + self.cached_image

    @property
    def output(self) -> int:
        """All tokens of the output."""
        return self.output_text + self.output_audio

    @property
    def total(self) -> int:
        """All tokens."""
        return self.input + self.output
