"""Parts shared by several tasks."""
