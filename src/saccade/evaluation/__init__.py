"""Figures over anything that predicts, with their uncertainty and where it fails. No torch."""
