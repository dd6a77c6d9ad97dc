"""The commands `runs …`: `group` holds the group, the other modules are imported when they are called."""
