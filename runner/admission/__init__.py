"""How much may be in flight, from what was observed. Pure: time is a parameter, and nothing here waits."""

from runner.admission.endpoint import EndpointAdmission
from runner.admission.observed import Adaptation, EngineLoad, HostPressure
from runner.admission.sandboxes import SandboxAdmission
from runner.admission.standstill import Standstill

__all__ = ["Adaptation", "EndpointAdmission", "EngineLoad", "HostPressure", "SandboxAdmission", "Standstill"]
