"""Every error that tracemill raises, flat, each named after the boundary where it arises.

    TracemillError
      ConfigError          (ValueError)    a config, with all its problems at once
      SchemaError          (ValueError)    a record or a tool definition that does not conform
      ScenarioError        (ValueError)    a goal template that cannot be drawn, or a broken reference
      EnvironmentMissing   (LookupError)   no environment of that name
      TeacherError         (RuntimeError)  a teacher gave no reply
        TeacherDied                        and will give no other: its engine is gone
        ContextTooLong                     the conversation does not fit into its context
      ClusterError         (RuntimeError)  Ray that does not start or cannot be reached
      HubError             (RuntimeError)  the Hugging Face Hub does not answer, or refuses
      DatasetError         (ValueError)    an output folder that cannot be read, resumed or trusted

A tool that fails does not raise: its failure is a result, and data. See `environments.base.ToolError`.
"""

from __future__ import annotations

from collections.abc import Sequence


class TracemillError(Exception):
    """What was expected, what came, and how to mend it; `problems` holds one line for each finding."""

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message, tuple(problems))  # args stay complete, so it survives pickling
        self.message = message
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([self.message, *(f"  - {problem}" for problem in self.problems)])


class ConfigError(TracemillError, ValueError):
    pass


class SchemaError(TracemillError, ValueError):
    pass


class ScenarioError(TracemillError, ValueError):
    pass


class EnvironmentMissing(TracemillError, LookupError):
    pass


class TeacherError(TracemillError, RuntimeError):
    pass


class TeacherDied(TeacherError):
    pass


class ContextTooLong(TeacherError):
    pass


class ClusterError(TracemillError, RuntimeError):
    pass


class HubError(TracemillError, RuntimeError):
    pass


class DatasetError(TracemillError, ValueError):
    pass
