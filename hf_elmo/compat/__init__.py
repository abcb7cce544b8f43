"""Interfaces of old programs, a file for each: their scripts run here with another import line."""
