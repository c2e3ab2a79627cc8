"""The control loop and the backend that runs its trials.

Its main types are `driver.Driver`, `tally.Tally`, `backend.Backend` and `backend.RunSite`. This file does not import
them, because the process of the local cluster and `gc` start without the planner and pydantic.
"""
