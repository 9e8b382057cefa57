"""Loss terms: functions of tensors, in log space, 2D and 3D alike."""
