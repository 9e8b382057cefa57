"""Every step's model predicted and scored."""
