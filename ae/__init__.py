"""Autoencoders trained with a structural-similarity loss, and the defects they show."""
