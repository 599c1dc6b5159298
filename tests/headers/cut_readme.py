"""Cut the first C program out of a Markdown page.

    cut_readme.py PAGE OUT
"""
import sys

page, out = sys.argv[1:]
code = open(page).read().split("```c\n", 1)[1].split("```", 1)[0]
with open(out, "w") as f:
    f.write(code)
