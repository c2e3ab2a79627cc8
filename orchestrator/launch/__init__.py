"""Everything between a spec and its first trial."""

from orchestrator.launch.estimate import estimate, machines
from orchestrator.launch.submit import Options, Submitted, submit

__all__ = ["Options", "Submitted", "estimate", "machines", "submit"]
