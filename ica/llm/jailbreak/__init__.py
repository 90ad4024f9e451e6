"""The harmless stand-in for jailbreaks: `attacks` and `judges`, `attack` sends them, `results` keeps and
compares.
"""
