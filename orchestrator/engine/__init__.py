"""The control loop and the backend that runs its trials."""
