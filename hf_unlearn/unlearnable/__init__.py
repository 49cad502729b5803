"""Trainings that are logged row by row, so that rows can be deleted from them exactly later."""
