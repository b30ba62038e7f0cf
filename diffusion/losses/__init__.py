"""Objectives, weightings of the noise levels, and which t a step draws."""
