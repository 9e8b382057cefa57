"""Raw data sets and schedules."""
