"""The same examples in every run: a failure here is a failure everywhere."""

from hypothesis import HealthCheck, settings

settings.register_profile("same-examples", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same-examples")
