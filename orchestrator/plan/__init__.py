"""Plans the trials of a job and estimates their cost, without I/O."""

from orchestrator.plan.cost import Cost, cost
from orchestrator.plan.planner import Planner
from orchestrator.plan.state import Decision, Progress
from orchestrator.plan.trials import PlannedTrial

__all__ = ["Cost", "Decision", "PlannedTrial", "Planner", "Progress", "cost"]
