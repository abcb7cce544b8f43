"""Old programs' interfaces, one file each: their scripts run here with another import line, and without their programs."""
