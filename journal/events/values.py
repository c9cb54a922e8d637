"""The values that events carry: states, metrics and frame counts by priority."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from journal.events.json_text import rust_floats


def _encodable(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            message = f"has a lone surrogate at character {error.start}, which UTF-8 cannot hold"
            raise ValueError(message) from None
    return text


U64_MAX = 2**64 - 1
U8_MAX = 255

U64 = Annotated[int, Field(strict=True, ge=0, le=U64_MAX)]
U8 = Annotated[int, Field(strict=True, ge=0, le=U8_MAX)]
Float = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Text = Annotated[str, Field(strict=True), AfterValidator(_encodable)]


class SessionState(StrEnum):
    """The states of a session, as the wire spells them."""

    INITIALIZING = "Initializing"
    ACTIVE = "Active"
    CLOSING = "Closing"
    COMPLETED = "Completed"
    FAILED = "Failed"


class StreamState(StrEnum):
    """The states of a stream, as the wire spells them."""

    PREPARING = "Preparing"
    STREAMING = "Streaming"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class Value(BaseModel):
    """What the models of this package have in common: frozen, and printed as Rust prints."""

    model_config = ConfigDict(frozen=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        """Make the table of field names that CPython lets the first instances of a class make.

        All later instances share it, which halves what `decoding` needs to fill one.
        """
        fields = object.__new__(cls).__dict__
        for name in cls.model_fields:
            fields[name] = None

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Answer for the slots that `decoding` leaves empty: all fields are set."""
            if name == "__pydantic_fields_set__":
                return {*type(self).model_fields}
            if name in ("__pydantic_extra__", "__pydantic_private__"):
                return None
            return super().__getattr__(name)

    @classmethod
    def model_construct(cls, _fields_set: set[str] | None = None, **values: Any) -> Self:
        """Return what the class itself returns: unlike pydantic's own, `values` are validated.

        So a journal need not doubt the events that it is given.

        Raises:
            pydantic.ValidationError: `values` do not fit the fields.
        """
        return cls(**values)

    def model_copy(self, *, update: Any = None, deep: bool = False) -> Self:
        """Return a copy; unlike pydantic's own, changed fields are validated.

        Raises:
            pydantic.ValidationError: `update` does not fit the fields.
        """
        if not update:
            return super().model_copy(deep=deep)
        return type(self).model_validate({**self.__dict__, **update})

    def model_dump_json(self, **options: Any) -> str:
        """Return the JSON text, floats written as the reference writes them (1e21, not 1e+21).

        `options` are those of `pydantic.BaseModel.model_dump_json`.
        """
        return rust_floats(super().model_dump_json(**options))


class PriorityPercentages(Value):
    """The shares of the five priorities: fractions from 0.0 to 1.0."""

    critical: Float
    high: Float
    medium: Float
    low: Float
    background: Float


class PriorityDistribution(Value):
    """How many frames there were of each priority (each from 0 to 2**64-1)."""

    critical_frames: Annotated[U64, "frames"] = 0
    high_frames: Annotated[U64, "frames"] = 0
    medium_frames: Annotated[U64, "frames"] = 0
    low_frames: Annotated[U64, "frames"] = 0
    background_frames: Annotated[U64, "frames"] = 0

    @model_validator(mode="before")
    @classmethod
    def _all_required_on_the_wire(cls, data: Any, info: ValidationInfo) -> Any:
        if info.mode == "json" and isinstance(data, dict):
            for name in cls.model_fields:
                if name not in data:
                    message = f"missing field {name!r}"
                    raise ValueError(message)
        return data

    @classmethod
    def from_counts(cls, critical: int, high: int, medium: int, low: int, background: int) -> Self:
        """Build a distribution from the five counts.

        Raises:
            pydantic.ValidationError: one is not an integer from 0 to 2**64-1.
        """
        return cls(
            critical_frames=critical,
            high_frames=high,
            medium_frames=medium,
            low_frames=low,
            background_frames=background,
        )

    @property
    def total_frames(self) -> int:
        """The frames of all priorities together; may exceed 2**64-1."""
        return (
            self.critical_frames
            + self.high_frames
            + self.medium_frames
            + self.low_frames
            + self.background_frames
        )

    def as_percentages(self) -> PriorityPercentages:
        """Return each priority's share of all frames, all 0.0 where there are no frames."""
        total = self.total_frames or 1
        return PriorityPercentages(
            critical=self.critical_frames / total,
            high=self.high_frames / total,
            medium=self.medium_frames / total,
            low=self.low_frames / total,
            background=self.background_frames / total,
        )


class PerformanceMetrics(Value):
    """One measurement of a session's throughput."""

    frames_per_second: Annotated[Float, "frames/s"]
    bytes_per_second: Annotated[Float, "bytes/s"]
    average_frame_size: Annotated[Float, "bytes"]
    priority_distribution: PriorityDistribution
    latency_ms: Annotated[U64, "ms"] | None = None
