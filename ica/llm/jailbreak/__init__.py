"""The harmless stand-in for jailbreaks: `attacks` (what is asked), `defences` (dialogues), `judges`, `attack` sends them, `results` keeps
what the judges said, `effects` compares.
"""
