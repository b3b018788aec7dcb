"""Operations of ours beside the model's (shapes.py): only the command line may call them, so their answers need no shape.

Their requests reuse shapes of the model; an answer is a JSON object described by its handler.
"""

from __future__ import annotations

from nucleus.wire import shapes

# operation: (kind, request, response, events), as in shapes.OPERATIONS
OPERATIONS: dict[str, tuple[str, str, str, str]] = {
    "marram#PlanLocalDeployment": ("unary", "CreateLocalDeploymentRequest", "", ""),
    "marram#ExplainDeployment": ("unary", "{string}", "", ""),
    "marram#ExplainAccess": ("unary", "{string}", "", ""),
    "marram#RestartNucleus": ("unary", "{string}", "", ""),
    "marram#GetConfigurationOrigins": ("unary", "GetConfigurationRequest", "", ""),
}


def operation(name: str) -> tuple[str, str, str, str]:
    """The row of an operation, the model's or ours. Raises KeyError."""
    return OPERATIONS.get(name) or shapes.OPERATIONS[name]
