"""What a good error message does not do."""

import re


def repeated(message: str) -> list[str]:
    """What the first line of a message says more than once: a clause, or what its override says already."""
    line = message.splitlines()[0]
    clauses = [re.sub("[ '`]", "", clause) for clause in line.split(": ")]
    found = [clause for clause in clauses if clauses.count(clause) > 1 and len(clause) > 3]
    if match := re.match(r"command line: [+~]*(?P<key>[\w.]+)(=(?P<value>\S*))?: (?P<rest>.*)", line):
        key, value, rest = match["key"], match["value"], match["rest"]
        found += re.findall(rf"(?<![\w.]){re.escape(key)}(?: = |: |={re.escape(str(value))}\b)", rest)
        found += [each for each in (f"`{key}`", f"`{value}`") if each in rest]
    return found
