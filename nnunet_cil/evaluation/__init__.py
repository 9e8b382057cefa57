"""Scores and pictures: arrays in, tables and figures out. No torch, no trainer."""
