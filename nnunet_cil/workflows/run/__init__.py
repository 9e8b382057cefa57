"""A whole schedule, in this process or as jobs."""
